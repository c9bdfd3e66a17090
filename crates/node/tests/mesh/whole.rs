//! Models that do not fit where they are asked for, and do on another machine. The engine is the real one.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use engine::{Backend, Error, ModelInfo};
use mesh::admission::Invite;
use node::{
    Loader, ModelSource, ModelState, Node, Plan, Progress, Settings, Snapshot, SplitModels,
};

use crate::script::Script;
use crate::world::{knows, node, piece, request, rest, settings, until, whole, within};

/// With this context the model takes more than a small machine has, and much less on two.
const CONTEXT_TOKENS: u32 = 65_536;

/// Memory of a small machine, bytes.
const SMALL_BYTES: u64 = 644_245_094;

/// Tokens of an answer.
const TOKENS: u32 = 24;

const STARTER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/starter.gguf");

/// A node with its files.
struct Machine {
    node: Node,
    _folders: [tempfile::TempDir; 2],
}

impl Machine {
    /// A standby node with the model in a file of this name, if any.
    async fn start(
        name: &str,
        file: Option<&str>,
        loader: Option<Arc<dyn Loader>>,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let (home, mut settings) = settings(name);
        let disk = tempfile::tempdir().unwrap();
        if let Some(file) = file {
            std::fs::copy(STARTER, disk.path().join(file)).unwrap();
        }
        settings.mesh.standby = true;
        settings.models_dirs = vec![disk.path().to_path_buf()];
        settings.context_tokens = Some(CONTEXT_TOKENS);
        settings.split = SplitModels::IfNeeded;
        change(&mut settings);
        let node = match loader {
            Some(loader) => Node::start_with(settings, loader).await,
            None => Node::start(settings).await,
        };
        Self {
            node: node.unwrap(),
            _folders: [home, disk],
        }
    }

    /// A node with room, and perhaps the file.
    async fn roomy(name: &str, file: Option<&str>) -> Self {
        Self::start(name, file, None, |_| {}).await
    }

    /// A node without room for the model that it is to serve, in a mesh of its own.
    async fn small(name: &str) -> Self {
        let small = Self::unmeshed(name).await;
        within(small.node.open_mesh(None)).await.unwrap();
        small
    }

    /// The same in no mesh.
    async fn unmeshed(name: &str) -> Self {
        Self::start(name, Some("six.gguf"), None, |settings| {
            settings.models = vec![ModelSource::Named("six".into())];
            settings.memory_bytes_max = Some(SMALL_BYTES);
        })
        .await
    }

    async fn join(&self, other: &Self) {
        let ticket = within(other.node.invite(Invite::default())).await.unwrap();
        within(self.node.join(&ticket)).await.unwrap();
    }

    /// Files of whole models that were fetched.
    fn fetched(&self) -> Vec<PathBuf> {
        let Ok(files) = std::fs::read_dir(self._folders[0].path().join("slices")) else {
            return Vec::new();
        };
        let paths = files.map(|file| file.unwrap().path());
        paths
            .filter(|path| path.to_str().unwrap().ends_with("-whole.gguf"))
            .collect()
    }

    /// What the model says here, and where it runs if not here.
    async fn asks(&self) -> (String, Option<String>) {
        let mut asked = request("six");
        asked.sampling.temperature = 0.0;
        asked.limits.max_tokens = Some(TOKENS);
        asked.limits.ignore_eos = true;
        let mut answer = within(self.node.answer(asked)).await.unwrap();
        let (text, end) = rest(&mut answer.events).await;
        assert_eq!(end, Ok(()));
        (text, answer.host.map(|host| host.name))
    }
}

/// What the model says on a machine that has room for it.
async fn said() -> String {
    let alone = Machine::start("alone", Some("six.gguf"), None, |settings| {
        settings.models = vec![ModelSource::Named("six".into())];
    });
    let alone = alone.await;
    within(alone.node.ready()).await.unwrap();
    let (text, host) = alone.asks().await;
    assert_eq!((text.is_empty(), host), (false, None));
    text
}

fn is_elsewhere(snapshot: &Snapshot, name: &str) -> bool {
    let host = name.to_owned();
    let mut models = snapshot.models.iter();
    models.any(|model| model.state == ModelState::Elsewhere { host: host.clone() })
}

/// Names of the machines that the model's layers are on, once it answers here.
fn ring(snapshot: &Snapshot) -> Vec<String> {
    let Some(model) = snapshot.models.first() else {
        return Vec::new();
    };
    let layout = model.layout.iter();
    layout
        .filter(|layout| model.state == ModelState::Ready && layout.waiting.is_none())
        .flat_map(|layout| layout.stages.iter().map(|stage| stage.name.clone()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_runs_whole_where_it_fits_and_in_a_ring_once_that_machine_is_lost() {
    let expected = said().await;
    let a = Machine::small("a").await;
    // The file has another name there.
    let b = Machine::roomy("b", Some("other.gguf")).await;
    b.join(&a).await;
    until(&a.node, |snapshot| is_elsewhere(snapshot, "b")).await;
    assert!(a.node.snapshot().is_ready());
    knows(&a.node, "six", 1).await;
    assert_eq!(a.asks().await, (expected.clone(), Some("b".into())));
    let snapshot = b.node.snapshot();
    let there = &snapshot.models[0];
    assert_eq!(there.name, "six");
    assert_eq!(there.state, ModelState::Ready);
    assert_eq!(there.layout, None);
    // One that lacks the file, and whose owner wants no models there, lends layers only.
    let never = |settings: &mut Settings| settings.split = SplitModels::Never;
    let c = Machine::start("c", None, None, never).await;
    c.join(&a).await;
    drop(b);
    until(&a.node, |snapshot| ring(snapshot) == ["c", "a"]).await;
    assert_eq!(a.asks().await, (expected, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_lacks_the_file_fetches_it_and_runs_the_model_whole() {
    let expected = said().await;
    let a = Machine::small("a").await;
    let b = Machine::roomy("b", None).await;
    b.join(&a).await;
    until(&a.node, |snapshot| is_elsewhere(snapshot, "b")).await;
    knows(&a.node, "six", 1).await;
    assert_eq!(a.asks().await, (expected, Some("b".into())));
    let snapshot = b.node.snapshot();
    let there = &snapshot.models[0];
    assert_eq!(there.name, "six");
    assert_eq!(there.state, ModelState::Ready);
    assert_eq!(there.layout, None);
    // It is the model, and nothing that was cut out of it.
    let [file] = &b.fetched()[..] else {
        panic!("{:?}", b.fetched());
    };
    assert!(std::fs::read(file).unwrap() == std::fs::read(STARTER).unwrap());
    // Dropped there it is not fetched again, and the machine lends layers.
    within(b.node.drop_model("six")).await.unwrap();
    until(&a.node, |snapshot| ring(snapshot) == ["b", "a"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_split_when_the_machine_that_fetched_it_can_not_load_it() {
    let full = Arc::new(Full::default());
    let loader = Arc::clone(&full) as Arc<dyn Loader>;
    let b = Machine::start("b", None, Some(loader), |_| {}).await;
    let a = Machine::small("a").await;
    b.join(&a).await;
    until(&a.node, |snapshot| ring(snapshot) == ["b", "a"]).await;
    assert!(full.asked.lock().unwrap().contains(&"six".to_owned()));
    assert!(b.node.snapshot().models.is_empty());
    // The file is not at fault, and stays.
    assert_eq!(b.fetched().len(), 1, "{:?}", b.fetched());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_stays_where_it_is_when_who_asked_for_it_drops_it_or_is_started_again() {
    let b = Machine::roomy("b", Some("six.gguf")).await;
    let a = Machine::small("a").await;
    b.join(&a).await;
    until(&a.node, |snapshot| is_elsewhere(snapshot, "b")).await;
    within(a.node.drop_model("six")).await.unwrap();
    assert!(a.node.snapshot().models.is_empty());
    knows(&a.node, "six", 1).await;
    assert_eq!(a.asks().await.1, Some("b".into()));
    // It is found there again.
    let six = ModelSource::Named("six".into());
    let again = within(a.node.load_model(six)).await;
    assert_eq!(again, Ok("six".into()));
    until(&a.node, |snapshot| is_elsewhere(snapshot, "b")).await;
    // The owner of the other machine has the last word.
    within(b.node.drop_model("six")).await.unwrap();
    until(&a.node, |snapshot| ring(snapshot) == ["b", "a"]).await;
}

/// Says of every model that it takes more than there is, and notes which it was asked about.
#[derive(Default)]
struct Full {
    asked: Mutex<Vec<String>>,
}

impl Loader for Full {
    fn memory_needed(&self, plan: &Plan) -> Result<u64, Error> {
        self.asked.lock().unwrap().push(plan.name.clone());
        Ok(u64::MAX)
    }

    fn load(&self, _: Plan, _: Progress) -> Result<Arc<dyn Backend>, Error> {
        Err(Error::Load("there is no room".into()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_split_when_the_machine_that_could_run_it_refuses() {
    let expected = said().await;
    let full = Arc::new(Full::default());
    let loader = Arc::clone(&full) as Arc<dyn Loader>;
    let b = Machine::start("b", Some("other.gguf"), Some(loader), |_| {}).await;
    let a = Machine::small("a").await;
    b.join(&a).await;
    until(&a.node, |snapshot| ring(snapshot) == ["b", "a"]).await;
    // It was asked under the name that the model has for whoever asks.
    assert!(full.asked.lock().unwrap().contains(&"six".to_owned()));
    assert_eq!(a.asks().await, (expected, None));
}

/// Has room for 16,384 tokens of context, whatever the model.
struct Narrow;

impl Loader for Narrow {
    fn memory_needed(&self, plan: &Plan) -> Result<u64, Error> {
        match plan.context_tokens {
            Some(..=16_384) => Ok(1),
            _ => Ok(u64::MAX),
        }
    }

    fn load(&self, _: Plan, _: Progress) -> Result<Arc<dyn Backend>, Error> {
        Err(Error::Load("nothing is loaded here".into()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_is_told_with_how_much_context_another_machine_would_run_a_model() {
    let b = Machine::start("b", Some("other.gguf"), Some(Arc::new(Narrow)), |_| {}).await;
    let a = Machine::start("a", Some("six.gguf"), None, |settings| {
        settings.models = vec![ModelSource::Named("six".into())];
        // Too little for any part of it.
        settings.memory_bytes_max = Some(1 << 20);
    });
    let a = a.await;
    within(a.node.open_mesh(None)).await.unwrap();
    b.join(&a).await;
    let told =
        "; b would run all of it with 16384 tokens of context at most; hint: --ctx-size 16384";
    until(&a.node, |snapshot| {
        let state = snapshot.models.first().map(|model| &model.state);
        matches!(state, Some(ModelState::Waiting { reason })
            if reason.contains(told) && reason.matches("hint: ").count() == 1)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_whose_owner_refuses_is_asked_for_nothing() {
    let never = |settings: &mut Settings| settings.split = SplitModels::Never;
    let b = Machine::start("b", Some("other.gguf"), None, never).await;
    let a = Machine::small("a").await;
    b.join(&a).await;
    // It lends layers, as it would without the file.
    until(&a.node, |snapshot| ring(snapshot) == ["b", "a"]).await;
    assert!(b.node.snapshot().models.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_its_owner_has_dropped_is_not_taken_up_under_any_name() {
    let a = Machine::small("a").await;
    // The file has another name there.
    let b = Machine::roomy("b", Some("other.gguf")).await;
    b.join(&a).await;
    until(&a.node, |snapshot| is_elsewhere(snapshot, "b")).await;
    within(a.node.drop_model("six")).await.unwrap();
    within(b.node.drop_model("SIX.gguf")).await.unwrap();
    until(&b.node, |snapshot| snapshot.models.is_empty()).await;
    // Somebody else wants it there, and has to do with layers.
    let d = Machine::unmeshed("d").await;
    d.join(&a).await;
    until(&d.node, |snapshot| !ring(snapshot).is_empty()).await;
    assert!(b.node.snapshot().models.is_empty());
}

/// Brings up a made-up engine in place of the model, once it may.
struct Slow {
    engine: Arc<Script>,
    may: Mutex<mpsc::Receiver<()>>,
}

impl Slow {
    /// An engine that gives so many tokens, and what lets it come up; dropping that does so too.
    fn new(tokens: usize) -> (Arc<Self>, mpsc::Sender<()>) {
        let (now, may) = mpsc::channel();
        let model = gguf::Model::open(STARTER).unwrap();
        let info = ModelInfo {
            name: "six".into(),
            context_tokens: CONTEXT_TOKENS,
            fingerprint: model.fingerprint().to_string(),
            ..Script::new("six", 1).info().as_ref().clone()
        };
        let slow = Self {
            engine: Script::of(info, tokens),
            may: Mutex::new(may),
        };
        (Arc::new(slow), now)
    }
}

impl Loader for Slow {
    fn memory_needed(&self, _: &Plan) -> Result<u64, Error> {
        Ok(1)
    }

    fn load(&self, _: Plan, _: Progress) -> Result<Arc<dyn Backend>, Error> {
        // An error: the other end is gone, and nobody is to wait.
        let _ = self.may.lock().unwrap().recv();
        Ok(Arc::clone(&self.engine) as Arc<dyn Backend>)
    }
}

/// Streams that wait for a model that nobody has room for have ended after so long.
const STUCK: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn streams_wait_while_another_machine_loads_what_the_lost_one_ran() {
    let (one, at_once) = Slow::new(7);
    drop(at_once);
    let (two, come_up) = Slow::new(20);
    let a = Machine::small("a").await;
    let b = Machine::start("b", Some("other.gguf"), Some(one), |_| {}).await;
    b.join(&a).await;
    until(&a.node, |snapshot| is_elsewhere(snapshot, "b")).await;
    let x = node("x", &[]);
    let ticket = within(a.node.invite(Invite::default())).await.unwrap();
    within(x.join(&ticket)).await.unwrap();
    knows(&x, "six", 1).await;
    let mut answer = within(x.answer(request("six"))).await.unwrap();
    let mut text = String::new();
    while text != whole(7) {
        text += &piece(&mut answer.events).await;
    }
    let c = Machine::start("c", Some("other.gguf"), Some(two), |_| {}).await;
    c.join(&a).await;
    until(&a.node, |snapshot| {
        let mesh = snapshot.mesh.as_ref().unwrap();
        let mut members = mesh.members.iter();
        members.any(|member| member.machine.name == "c" && !member.local.is_empty())
    })
    .await;
    drop(b);
    until(&a.node, |snapshot| {
        let waits = ModelState::Waiting {
            reason: "c loads all of it".into(),
        };
        snapshot.models[0].state == waits
    })
    .await;
    tokio::time::sleep(STUCK).await;
    come_up.send(()).unwrap();
    let (more, end) = rest(&mut answer.events).await;
    assert_eq!((text + &more, end), (whole(20), Ok(())));
    until(&a.node, |snapshot| is_elsewhere(snapshot, "c")).await;
}
