//! Models that nodes take up by themselves, and what a joiner does meanwhile.

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use engine::{Backend, Error};
use gguf::{Metadata, Value};
use node::{Draft, Loader, ModelSource, Node, Plan, Progress, Role, StartError};

use crate::script::Script;
use crate::world::{connect, knows, node, request, rest, settings, until, whole, within};

/// Makes scripts; each load waits for a permit.
struct Scripts {
    permits: Mutex<Receiver<()>>,
}

impl Loader for Scripts {
    fn memory_needed(&self, _: &Plan) -> Result<u64, Error> {
        Ok(1)
    }

    fn load(&self, plan: Plan, _: Progress) -> Result<Arc<dyn Backend>, Error> {
        let permit = self.permits.lock().unwrap().recv();
        permit.map_err(|_| Error::Load("the test is over".into()))?;
        Ok(Script::new(&plan.name, 1))
    }
}

fn loader() -> (Sender<()>, Arc<Scripts>) {
    let (sender, permits) = channel();
    let permits = Mutex::new(permits);
    (sender, Arc::new(Scripts { permits }))
}

fn write_model(folder: &Path, name: &str) {
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", Value::String("qwen3".into()));
    metadata.set("qwen3.context_length", Value::U32(2048));
    let bytes = gguf::Plan::new(metadata).unwrap().header_bytes().unwrap();
    std::fs::write(folder.join(format!("{name}.gguf")), bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_joiner_answers_at_once_and_takes_up_what_the_mesh_lacks() {
    let served = Script::new("served", 1);
    let a = node("a", &[&served]);
    let ticket = connect(&[&a]).await;

    let disk = tempfile::tempdir().unwrap();
    write_model(disk.path(), "served");
    write_model(disk.path(), "lacking");
    let (_home, mut settings) = settings("b");
    settings.models_dirs = vec![disk.path().to_path_buf()];
    let (permit, loader) = loader();
    let b = Node::start_with(settings, loader).await.unwrap();
    within(b.join(&ticket)).await.unwrap();
    let joining = |snapshot: &node::Snapshot| {
        snapshot
            .mesh
            .as_ref()
            .is_some_and(|mesh| mesh.role == Role::Joining)
    };
    until(&b, joining).await;
    // It loads, and answers through the mesh meanwhile.
    let mut events = within(b.generate(request("served"))).await.unwrap();
    assert_eq!(rest(&mut events).await, (whole(20), Ok(())));
    assert_eq!(b.snapshot().models[0].name, "lacking");
    permit.send(()).unwrap();
    knows(&a, "lacking", 1).await;
    let mut answer = within(a.answer(request("lacking"))).await.unwrap();
    assert_eq!(answer.host.unwrap().name, "b");
    assert_eq!(rest(&mut answer.events).await.1, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_joiner_is_not_given_its_draft_model() {
    let a = node("a", &[]);
    let ticket = connect(&[&a]).await;
    let disk = tempfile::tempdir().unwrap();
    // Of two that nobody serves the first by name would be taken.
    write_model(disk.path(), "drafts");
    write_model(disk.path(), "writes");
    let (_home, mut settings) = settings("b");
    settings.models_dirs = vec![disk.path().to_path_buf()];
    settings.draft = Draft::Model(ModelSource::parse("drafts"));
    let (permit, loader) = loader();
    permit.send(()).unwrap();
    let b = Node::start_with(settings, loader).await.unwrap();
    within(b.join(&ticket)).await.unwrap();
    knows(&a, "writes", 1).await;
    // Nor do others hear of it.
    let snapshot = a.snapshot();
    let mut members = snapshot.mesh.as_ref().unwrap().members.iter();
    let b = members.find(|member| member.machine.name == "b").unwrap();
    assert_eq!(b.local, ["writes"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_asked_in_vain_to_load_a_model() {
    let disk = tempfile::tempdir().unwrap();
    write_model(disk.path(), "m");
    let (_home, mut settings) = settings("c");
    settings.models_dirs = vec![disk.path().to_path_buf()];
    settings.mesh.role = mesh::Role::Client;
    settings.mesh.home = None;
    let (permit, loader) = loader();
    permit.send(()).unwrap();
    let c = Node::start_with(settings, loader).await.unwrap();
    // The API answers this with 403.
    let refused = within(c.load_model(ModelSource::parse("m"))).await;
    assert_eq!(refused, Err(StartError::Client));
    // In a mesh it is the same.
    let script = Script::new("served", 1);
    let a = node("a", &[&script]);
    let ticket = connect(&[&a]).await;
    within(c.join(&ticket)).await.unwrap();
    knows(&c, "served", 1).await;
    let refused = within(c.load_model(ModelSource::parse("m"))).await;
    assert_eq!(refused, Err(StartError::Client));
    assert!(c.snapshot().models.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_node_takes_up_a_lost_model() {
    let script = Script::new("m", 1);
    let a = node("a", &[&script]);
    let disk = tempfile::tempdir().unwrap();
    write_model(disk.path(), "m");
    let (_home, mut settings) = settings("b");
    settings.models_dirs = vec![disk.path().to_path_buf()];
    settings.mesh.standby = true;
    let (permit, loader) = loader();
    let b = Node::start_with(settings, loader).await.unwrap();
    within(b.open_mesh(Some("ours"))).await.unwrap();
    let ticket = within(b.invite(Default::default())).await.unwrap();
    within(a.join(&ticket)).await.unwrap();
    knows(&b, "m", 1).await;
    assert_eq!(b.snapshot().mesh.as_ref().unwrap().role, Role::Standby);
    permit.send(()).unwrap();
    a.node.shutdown(std::time::Duration::ZERO).await;
    knows(&b, "m", 0).await;
    knows(&b, "m", 1).await;
    let mut answer = within(b.answer(request("m"))).await.unwrap();
    assert_eq!(answer.host, None);
    assert_eq!(rest(&mut answer.events).await.1, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_node_helps_out_with_a_hot_model() {
    hot(&[&Script::new("m", 1)], 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_node_takes_up_what_many_ask_for_in_vain() {
    hot(&[], 1).await;
}

/// Asks node a, which serves `serving`, so often for `m` that standby node b takes it up; it then has
/// so many hosts.
async fn hot(serving: &[&Arc<Script>], hosts: usize) {
    let a = node("a", serving);
    let ticket = connect(&[&a]).await;
    let disk = tempfile::tempdir().unwrap();
    write_model(disk.path(), "m");
    let (_home, mut settings) = settings("b");
    settings.models_dirs = vec![disk.path().to_path_buf()];
    settings.mesh.standby = true;
    let (permit, loader) = loader();
    permit.send(()).unwrap();
    let b = Node::start_with(settings, loader).await.unwrap();
    within(b.join(&ticket)).await.unwrap();
    knows(&b, "m", hosts - 1).await;
    let asking = async {
        for _ in 0..20 {
            // Nobody may answer yet.
            if let Ok(mut events) = within(a.generate(request("m"))).await {
                rest(&mut events).await.1.unwrap();
            }
        }
    };
    asking.await;
    knows(&a, "m", hosts).await;
    assert_eq!(b.snapshot().mesh.as_ref().unwrap().role, Role::Serving);
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_loaded_and_dropped_at_run_time() {
    let disk = tempfile::tempdir().unwrap();
    write_model(disk.path(), "m");
    let (_home, mut settings) = settings("a");
    settings.models_dirs = vec![disk.path().to_path_buf()];
    settings.memory_bytes_max = Some(1);
    let (permit, loader) = loader();
    let a = Node::start_with(settings, loader).await.unwrap();
    permit.send(()).unwrap();
    assert_eq!(
        within(a.load_model(ModelSource::parse("m"))).await.unwrap(),
        "m"
    );
    knows(&a, "m", 1).await;
    // Again is no mistake; another one does not fit into what the owner allows.
    assert_eq!(
        within(a.load_model(ModelSource::parse("m"))).await.unwrap(),
        "m"
    );
    write_model(disk.path(), "n");
    let full = within(a.load_model(ModelSource::parse("n")))
        .await
        .unwrap_err();
    assert!(
        full.to_string().starts_with("not enough memory for `n`"),
        "{full}"
    );
    a.drop_model("m").await.unwrap();
    until(&a, |snapshot| snapshot.models.is_empty()).await;
    permit.send(()).unwrap();
    assert_eq!(
        within(a.load_model(ModelSource::parse("n"))).await.unwrap(),
        "n"
    );
    knows(&a, "n", 1).await;
    assert!(
        within(a.load_model(ModelSource::parse("nope")))
            .await
            .is_err()
    );
}
