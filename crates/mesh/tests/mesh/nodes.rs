//! Owns the nodes of these tests: on loopback, without relays or multicast.

use std::sync::Arc;
use std::time::Duration;

use mesh::admission::{Invite, Refusal};
use mesh::announcement::{NodeInfo, NodeState};
use mesh::identity::StateDir;
use mesh::net::{IncomingStream, MemberStatus, MeshError, Network, Settings, StreamKind, Streams};
use mesh::proto::View;
use mesh::ticket::Ticket;
use mesh::{Mesh, NodeId, Role};
use tempfile::TempDir;
use tokio::time::timeout;

/// Ends a test that hangs. Nothing here takes long; the machine may be busy.
pub(crate) const HANG: Duration = Duration::from_secs(90);

pub(crate) const ECHO: StreamKind = StreamKind(1);

/// A node with its files.
pub(crate) struct Node {
    pub(crate) mesh: Mesh,
    pub(crate) streams: Streams,
    pub(crate) home: TempDir,
}

pub(crate) fn settings(home: &TempDir) -> Settings {
    let info = NodeInfo {
        state: NodeState::Serving,
        name: "test".into(),
        ..NodeInfo::default()
    };
    Settings {
        network: Network::loopback(),
        ..Settings::new(Some(StateDir::new(home.path())), info)
    }
}

/// Settings of a node that keeps nothing and serves nothing.
pub(crate) fn client_settings() -> Settings {
    Settings {
        network: Network::loopback(),
        role: Role::Client,
        ..Settings::new(None, NodeInfo::default())
    }
}

pub(crate) fn home() -> TempDir {
    tempfile::tempdir().unwrap()
}

impl Node {
    pub(crate) async fn create() -> Self {
        Self::create_with(|_| {}).await
    }

    pub(crate) async fn create_with(change: impl FnOnce(&mut Settings)) -> Self {
        let home = home();
        let mut settings = settings(&home);
        change(&mut settings);
        let (mesh, streams) = Mesh::create(settings, None).await.unwrap();
        Self {
            mesh,
            streams,
            home,
        }
    }

    pub(crate) async fn join(ticket: &Ticket) -> Result<Self, MeshError> {
        let home = home();
        Self::join_at(home, ticket).await
    }

    pub(crate) async fn join_at(home: TempDir, ticket: &Ticket) -> Result<Self, MeshError> {
        let (mesh, streams) = within(Mesh::join(settings(&home), ticket)).await?;
        Ok(Self {
            mesh,
            streams,
            home,
        })
    }

    pub(crate) async fn client(ticket: &Ticket) -> Result<(Mesh, Streams), MeshError> {
        within(Mesh::join(client_settings(), ticket)).await
    }

    pub(crate) fn id(&self) -> NodeId {
        self.mesh.node_id()
    }

    pub(crate) async fn ticket(&self) -> Ticket {
        self.invite(Invite::default()).await
    }

    pub(crate) async fn invite(&self, invite: Invite) -> Ticket {
        within(self.mesh.invite(invite)).await.unwrap()
    }

    pub(crate) async fn client_ticket(&self) -> Ticket {
        self.invite(Invite {
            role: Role::Client,
            ..Invite::default()
        })
        .await
    }

    /// A second node that has joined, both seeing each other.
    pub(crate) async fn bring(&self) -> Self {
        let node = Self::join(&self.ticket().await).await.unwrap();
        sees(&self.mesh, node.id()).await;
        sees(&node.mesh, self.id()).await;
        node
    }

    /// Ends as a killed process does: without a word.
    pub(crate) fn kill(self) -> TempDir {
        self.home
    }
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(HANG, future).await.expect("hangs")
}

/// Waits until the view of `mesh` is as wanted.
pub(crate) async fn until(mesh: &Mesh, wanted: impl Fn(&View) -> bool) -> Arc<View> {
    let mut view = mesh.view();
    let waited = timeout(HANG, view.wait_for(|view| wanted(view))).await;
    match waited {
        Ok(view) => view.unwrap().clone(),
        Err(_) => panic!("the view stays at {:?}", mesh.view().borrow().members),
    }
}

pub(crate) async fn sees(mesh: &Mesh, node: NodeId) {
    until(mesh, |view| {
        view.member(node).is_some_and(|member| member.is_alive())
    })
    .await;
}

pub(crate) async fn sees_gone(mesh: &Mesh, node: NodeId) {
    until(mesh, |view| {
        view.member(node).is_none_or(|member| !member.is_alive())
    })
    .await;
}

/// Waits until there is no connection between them.
pub(crate) async fn apart(mesh: &Mesh, node: NodeId) {
    within(async {
        let mut view = mesh.view();
        loop {
            let links = mesh.links().await.unwrap();
            if links.iter().all(|link| link.node != node) {
                break;
            }
            view.changed().await.unwrap();
        }
    })
    .await;
}

/// Waits until the node knows for certain that it is out.
pub(crate) async fn expelled(mesh: &Mesh) -> MemberStatus {
    let mut status = mesh.status();
    within(status.wait_for(|status| matches!(status, MemberStatus::Expelled(_))))
        .await
        .unwrap()
        .clone()
}

pub(crate) fn refusal<T>(outcome: Result<T, MeshError>) -> Refusal {
    match outcome {
        Ok(_) => panic!("should be refused"),
        Err(MeshError::Refused(refusal)) => refusal,
        Err(error) => panic!("should be refused, but: {error}"),
    }
}

/// Sends back what comes on a stream.
pub(crate) async fn echo(mut stream: IncomingStream) {
    tokio::io::copy(&mut stream.recv, &mut stream.send)
        .await
        .unwrap();
    stream.send.finish().unwrap();
}

/// One stream to `node`, answered by [`echo`] there.
pub(crate) async fn ask(mesh: &Mesh, node: NodeId, question: &[u8]) -> Result<Vec<u8>, MeshError> {
    let (mut send, mut recv) = within(mesh.open(node, ECHO)).await?;
    send.write_all(question).await.unwrap();
    send.finish().unwrap();
    Ok(within(recv.read_to_end(1 << 20)).await.unwrap())
}
