//! Nodes that only a relay joins.

use std::net::Ipv4Addr;

use iroh::RelayUrl;
use iroh_relay::server::{RelayConfig, Server, ServerConfig};
use mesh::Mesh;
use mesh::admission::Invite;
use mesh::net::{Path, Relays, Settings};

use crate::nodes::{ask, echo, home, sees, settings, within};

fn relayed(mut settings: Settings, url: &str) -> Settings {
    settings.network.relays = Relays::Own(vec![url.into()]);
    settings.network.ip = None;
    settings.network.direct = false;
    settings
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_work_through_a_relay_alone() {
    let mut config = ServerConfig::default();
    config.relay = Some(RelayConfig::new((Ipv4Addr::LOCALHOST, 0)));
    let server = Server::spawn(config).await.unwrap();
    let url: RelayUrl = format!("http://{}", server.http_addr().unwrap())
        .parse()
        .unwrap();
    let url = url.to_string();
    let (first_home, second_home) = (home(), home());
    let (one, mut streams) = Mesh::create(relayed(settings(&first_home), &url), None)
        .await
        .unwrap();
    let ticket = within(one.invite(Invite::default())).await.unwrap();
    let (_, addresses) = &ticket.terms().bootstrap[0];
    assert!(addresses.direct().is_empty());
    assert_eq!(addresses.relay(), Some(url.as_str()));
    let joined = within(Mesh::join(relayed(settings(&second_home), &url), &ticket)).await;
    let (two, _streams) = joined.unwrap();
    sees(&one, two.node_id()).await;
    sees(&two, one.node_id()).await;
    let answer = async { echo(within(streams.next()).await.unwrap()).await };
    let (said, ()) = tokio::join!(ask(&two, one.node_id(), b"through"), answer);
    assert_eq!(said.unwrap(), b"through");
    let links = two.links().await.unwrap();
    assert_eq!(links[0].path, Path::Relayed(url));
    tokio::join!(one.leave(), two.leave());
    server.shutdown().await.unwrap();
}
