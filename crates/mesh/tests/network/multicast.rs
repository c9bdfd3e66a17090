//! Nodes on one network that find each other by multicast, with no address and no server.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use mesh::Mesh;
use mesh::identity::StateDir;
use mesh::net::Settings;
use mesh::ticket::Ticket;
use mesh::{Addresses, NodeId};
use tempfile::TempDir;

use crate::nodes::{home, sees, settings, within};

/// How long a packet of this machine to itself may take. It is there at once, or never.
const MULTICAST_WAIT: Duration = Duration::from_secs(2);

/// Whether a packet to a multicast group comes back here at all.
pub(crate) fn multicast_works() -> Result<(), String> {
    let group = Ipv4Addr::new(224, 0, 0, 251);
    let there_and_back = || {
        let socket = UdpSocket::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))?;
        socket.join_multicast_v4(&group, &Ipv4Addr::UNSPECIFIED)?;
        socket.set_read_timeout(Some(MULTICAST_WAIT))?;
        let port = socket.local_addr()?.port();
        socket.send_to(b"anybody there", (group, port))?;
        socket.recv_from(&mut [0; 32]).map(drop)
    };
    there_and_back()
        .map_err(|error: std::io::Error| format!("no multicast on this machine: {error}"))
}

pub(crate) fn local(mut settings: Settings) -> Settings {
    settings.network.ip = None;
    settings.network.local_discovery = true;
    settings
}

/// A ticket of `mesh` that says of nobody where it is.
pub(crate) async fn bare_ticket(mesh: &Mesh, home: &TempDir) -> Ticket {
    let ticket = within(mesh.invite(Default::default())).await.unwrap();
    let mut terms = ticket.terms().clone();
    let bare: Vec<(NodeId, Addresses)> = vec![(mesh.node_id(), Addresses::default())];
    terms.bootstrap = bare;
    let key = StateDir::new(home.path()).key().unwrap();
    Ticket::sign(terms, &key)
}

#[tokio::main]
pub(crate) async fn a_ticket_without_addresses_works_on_a_local_network() {
    let (first, second) = (home(), home());
    let (one, _streams) = Mesh::create(local(settings(&first)), None).await.unwrap();
    let bare = bare_ticket(&one, &first).await;
    let (two, _streams) = within(Mesh::join(local(settings(&second)), &bare))
        .await
        .unwrap();
    sees(&one, two.node_id()).await;
    sees(&two, one.node_id()).await;
}
