//! Machines that lack the file of a model that is to be split, and are measured with it all the same. The engine is the
//! real one.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use mesh::admission::Invite;
use node::{ModelSource, ModelState, Node, Settings, SplitModels};
use tokio::time::sleep;

use crate::world::{settings, until, within};

const STARTER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/starter.gguf");

/// How long the first plan waits for trials here. On a busy machine all of them take longer than the 12 s of every day.
const TRIAL_WAIT_MAX: Duration = Duration::from_secs(75);

/// A node with its files.
struct Machine {
    node: Node,
    home: tempfile::TempDir,
    _disk: tempfile::TempDir,
}

impl Machine {
    /// One without models.
    async fn start(name: &str, change: impl FnOnce(&mut Settings, &Path)) -> Self {
        let (home, mut settings) = settings(name);
        let disk = tempfile::tempdir().unwrap();
        settings.mesh.standby = true;
        settings.models_dirs = vec![disk.path().to_path_buf()];
        settings.context_tokens = Some(4_096);
        settings.threads = Some(1);
        settings.mesh.trial_wait_max = TRIAL_WAIT_MAX;
        change(&mut settings, disk.path());
        Self {
            node: Node::start(settings).await.unwrap(),
            home,
            _disk: disk,
        }
    }

    /// One that splits the model in its file. `keeps_weights`: it gives none to others.
    async fn host(keeps_weights: bool) -> Self {
        Self::start("host", |settings, disk| {
            std::fs::copy(STARTER, disk.join("six.gguf")).unwrap();
            settings.keeps_weights = keeps_weights;
            settings.models = vec![ModelSource::Named("six".into())];
            settings.split = SplitModels::Always;
        })
        .await
    }

    fn id(&self) -> String {
        self.node.snapshot().mesh.as_ref().unwrap().me.to_string()
    }

    /// What it has written down of how fast machines are with the model: their ids, and bytes that they decode a second.
    fn measured(&self) -> Vec<(String, f64)> {
        let file = std::fs::read(self.home.path().join("speeds.json")).unwrap_or_default();
        let entries: BTreeMap<String, serde_json::Value> =
            serde_json::from_slice(&file).unwrap_or_default();
        let model = gguf::Model::open(STARTER).unwrap().fingerprint();
        let prefix = format!("model/{model}/");
        let measured = entries.iter().filter_map(|(key, entry)| {
            let (node, _) = key.strip_prefix(&prefix)?.split_once('/')?;
            Some((node.to_owned(), entry["decode"].as_f64()?))
        });
        measured.collect()
    }

    /// Files of complete slices that it keeps.
    fn slices(&self) -> usize {
        let Ok(files) = std::fs::read_dir(self.home.path().join("slices")) else {
            return 0;
        };
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".gguf")).count()
    }

    /// Files that are there for trials.
    fn trials(&self) -> usize {
        let files = std::fs::read_dir(self.home.path().join("trials"));
        files.map_or(0, Iterator::count)
    }
}

/// Waits until a machine has written down that another one was measured, and returns how fast it is.
async fn knows(machine: &Machine, of: &str) -> f64 {
    within(async {
        loop {
            let measured = machine.measured();
            if let Some((_, decode)) = measured.iter().find(|(node, _)| node == of) {
                return *decode;
            }
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await
}

/// A host, and a machine that lacks the model's file.
async fn pair(keeps_weights: bool) -> (Machine, Machine) {
    let host = Machine::host(keeps_weights).await;
    within(host.node.open_mesh(None)).await.unwrap();
    let other = Machine::start("other", |_, _| {}).await;
    let ticket = within(host.node.invite(Invite::default())).await.unwrap();
    within(other.node.join(&ticket)).await.unwrap();
    (host, other)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_weights_travel_to_measure_a_machine_without_the_file() {
    // Who gets headers and hashes alone can't run layers, and is measured all the same.
    let (host, other) = pair(true).await;
    let id = other.id();
    let (own, told) = (knows(&other, &id).await, knows(&host, &id).await);
    assert!((own - told).abs() < 2.0, "{own} {told}");
    assert_eq!((other.slices(), other.trials()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_without_the_file_is_measured_before_it_runs_layers() {
    let (host, other) = pair(false).await;
    until(&host.node, |snapshot| {
        let mut models = snapshot.models.iter();
        models.any(|model| model.state == ModelState::Ready)
    })
    .await;
    // Nobody has asked the model for anything, so the ring has told nothing yet.
    let id = other.id();
    knows(&other, &id).await;
    knows(&host, &id).await;
    // Only the layers that it runs are there.
    assert_eq!((other.slices(), other.trials()), (1, 0));
}
