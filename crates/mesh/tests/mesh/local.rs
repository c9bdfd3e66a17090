//! Nodes on one network that find each other by multicast, with no address and no server.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use mesh::Mesh;
use mesh::identity::StateDir;
use mesh::net::Settings;
use mesh::ticket::Ticket;
use mesh::{Addresses, NodeId};

use crate::nodes::{home, sees, settings, within};

/// Whether a packet to a multicast group comes back here at all.
fn multicast_works() -> std::io::Result<()> {
    let group = Ipv4Addr::new(224, 0, 0, 251);
    let socket = UdpSocket::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))?;
    socket.join_multicast_v4(&group, &Ipv4Addr::UNSPECIFIED)?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    let port = socket.local_addr()?.port();
    socket.send_to(b"anybody there", (group, port))?;
    socket.recv_from(&mut [0; 32]).map(drop)
}

fn local(mut settings: Settings) -> Settings {
    settings.network.ip = None;
    settings.network.local_discovery = true;
    settings
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_without_addresses_works_on_a_local_network() {
    if let Err(error) = multicast_works() {
        eprintln!("skipped: no multicast on this machine ({error})");
        return;
    }
    let (first, second) = (home(), home());
    let (one, _streams) = Mesh::create(local(settings(&first)), None).await.unwrap();
    let ticket = within(one.invite(Default::default())).await.unwrap();
    let mut terms = ticket.terms().clone();
    let bare: Vec<(NodeId, Addresses)> = vec![(one.node_id(), Addresses::default())];
    terms.bootstrap = bare;
    let key = StateDir::new(first.path()).key().unwrap();
    let bare = Ticket::sign(terms, &key);
    let (two, _streams) = within(Mesh::join(local(settings(&second)), &bare))
        .await
        .unwrap();
    sees(&one, two.node_id()).await;
    sees(&two, one.node_id()).await;
}
