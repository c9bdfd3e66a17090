//! Nodes of these tests, and what to wait for.

use std::sync::Arc;
use std::time::Duration;

use engine::{Backend, Error, Event, EventStream, Input, Request};
use futures::StreamExt;
use mesh::Role;
use mesh::admission::Invite;
use mesh::net::Network;
use mesh::ticket::Ticket;
use node::{MeshSettings, Node, Settings, Snapshot};
use tokio::time::timeout;

use crate::script::Script;

/// Ends a test that hangs. Nothing here takes long; the machine may be busy.
const HANG: Duration = Duration::from_secs(90);

/// What a whole answer says.
pub(crate) fn whole(tokens: u32) -> String {
    (0..tokens).map(|index| format!("{index} ")).collect()
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(HANG, future).await.expect("it hangs")
}

pub(crate) fn settings(name: &str) -> (tempfile::TempDir, Settings) {
    let home = tempfile::tempdir().unwrap();
    let settings = Settings {
        mesh: MeshSettings {
            home: Some(home.path().to_path_buf()),
            network: Network::loopback(),
            node_name: name.into(),
            ..MeshSettings::default()
        },
        ..Settings::default()
    };
    (home, settings)
}

/// A node with its files.
pub(crate) struct World {
    pub(crate) node: Node,
    _home: tempfile::TempDir,
}

impl std::ops::Deref for World {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

pub(crate) fn node(name: &str, scripts: &[&Arc<Script>]) -> World {
    node_with(name, scripts, |_| {})
}

pub(crate) fn node_with(
    name: &str,
    scripts: &[&Arc<Script>],
    change: impl FnOnce(&mut Settings),
) -> World {
    let (home, mut settings) = settings(name);
    change(&mut settings);
    let backends = scripts
        .iter()
        .map(|script| Arc::clone(script) as Arc<dyn Backend>);
    World {
        node: Node::from_backends_with(settings, backends.collect()),
        _home: home,
    }
}

pub(crate) fn client(name: &str) -> World {
    node_with(name, &[], |settings| {
        settings.mesh.role = Role::Client;
        settings.mesh.home = None;
    })
}

/// Opens a mesh at the first node and lets the others join.
pub(crate) async fn connect(nodes: &[&World]) -> Ticket {
    let (first, others) = nodes.split_first().unwrap();
    within(first.open_mesh(None)).await.unwrap();
    let ticket = within(first.invite(Invite::default())).await.unwrap();
    for other in others {
        within(other.join(&ticket)).await.unwrap();
    }
    ticket
}

/// Waits until a node's state is as wished.
pub(crate) async fn until(node: &Node, wish: impl Fn(&Snapshot) -> bool) {
    let mut watch = node.watch();
    let state = timeout(HANG, watch.wait_for(|snapshot| wish(snapshot))).await;
    if state.is_err() {
        panic!("never came about: {:#?}", node.snapshot());
    }
}

/// Waits until a node knows so many hosts of a model.
pub(crate) async fn knows(node: &Node, model: &str, hosts: usize) {
    until(node, |snapshot| {
        let target = snapshot.targets.iter().find(|target| target.model == model);
        target.map_or(0, |target| target.hosts.len()) == hosts
    })
    .await;
}

pub(crate) fn request(model: &str) -> Request {
    Request::new(model, Input::Text("hi".into()))
}

/// The next piece of text.
pub(crate) async fn piece(events: &mut EventStream) -> String {
    loop {
        match within(events.next())
            .await
            .expect("the answer ended")
            .unwrap()
        {
            Event::Delta { delta, .. } => return delta.content,
            Event::Started { .. } => {}
            other => panic!("no text, but {other:?}"),
        }
    }
}

/// All text that is left, and how it ended.
pub(crate) async fn rest(events: &mut EventStream) -> (String, Result<(), Error>) {
    let mut text = String::new();
    loop {
        match within(events.next()).await {
            None => return (text, Err(Error::Inference("no end".into()))),
            Some(Err(error)) => return (text, Err(error)),
            Some(Ok(Event::Done(_))) => return (text, Ok(())),
            Some(Ok(Event::Delta { delta, .. })) => text += &delta.content,
            Some(Ok(_)) => {}
        }
    }
}
