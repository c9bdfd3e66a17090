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

    /// One that splits the model in its file.
    async fn host() -> Self {
        Self::start("host", |settings, disk| {
            std::fs::copy(STARTER, disk.join("six.gguf")).unwrap();
            settings.models = vec![ModelSource::Named("six".into())];
            settings.split = SplitModels::Always;
        })
        .await
    }

    fn id(&self) -> String {
        self.node.snapshot().mesh.as_ref().unwrap().me.to_string()
    }

    /// What it has written down of how fast machines are with the model: their ids.
    fn measured(&self) -> Vec<String> {
        let file = std::fs::read(self.home.path().join("speeds.json")).unwrap_or_default();
        let entries: BTreeMap<String, serde_json::Value> =
            serde_json::from_slice(&file).unwrap_or_default();
        let model = gguf::Model::open(STARTER).unwrap().fingerprint();
        let prefix = format!("model/{model}/");
        let keys = entries.keys().filter_map(|key| key.strip_prefix(&prefix));
        keys.filter_map(|rest| Some(rest.split_once('/')?.0.to_owned()))
            .collect()
    }

    /// Files of complete slices that it keeps.
    fn slices(&self) -> usize {
        let Ok(files) = std::fs::read_dir(self.home.path().join("slices")) else {
            return 0;
        };
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".gguf")).count()
    }
}

/// Waits until a machine has written down that another one was measured.
async fn knows(machine: &Machine, of: &str) {
    within(async {
        while !machine.measured().iter().any(|node| node == of) {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_without_the_file_is_measured_with_layers_that_it_fetches() {
    let host = Machine::host().await;
    within(host.node.open_mesh(None)).await.unwrap();
    let other = Machine::start("other", |_, _| {}).await;
    let ticket = within(host.node.invite(Invite::default())).await.unwrap();
    within(other.node.join(&ticket)).await.unwrap();
    until(&host.node, |snapshot| {
        let mut models = snapshot.models.iter();
        models.any(|model| model.state == ModelState::Ready)
    })
    .await;
    // Nobody has asked the model for anything, so the ring has told nothing yet.
    let id = other.id();
    knows(&other, &id).await;
    knows(&host, &id).await;
    // Of what was fetched only the layers stay that it runs.
    assert_eq!(other.slices(), 1);
}
