//! Ports over restarts, with real sockets.

use std::net::UdpSocket;

use super::*;
use crate::admission::samples::key;

/// Ends a test that hangs.
const HANG: Duration = Duration::from_secs(60);

/// A port that is taken stays so in most of these tests.
const WAIT: Duration = Duration::from_millis(50);

/// All addresses of this machine, so that IPv6 takes part where there is any.
fn network() -> Network {
    Network {
        relays: Relays::None,
        local_discovery: false,
        ..Network::default()
    }
}

fn state() -> (tempfile::TempDir, StateDir) {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::new(dir.path().join("home"));
    (dir, state)
}

/// What is remembered of a start that had these.
fn kept(ports: Ports) -> KeptPorts {
    KeptPorts::default().after(ports)
}

async fn started(network: &Network, state: Option<&StateDir>) -> Endpoint {
    bind_within(WAIT, key(1), network, state).await.unwrap()
}

/// Returns once nobody has the ports of `endpoint` any more.
async fn stop(endpoint: Endpoint) {
    let sockets = endpoint.bound_sockets();
    endpoint.close().await;
    drop(endpoint);
    let freed = async {
        for socket in sockets {
            while try_socket(socket).is_err() {
                sleep(FREE_INTERVAL).await;
            }
        }
    };
    tokio::time::timeout(HANG, freed).await.unwrap();
}

#[tokio::test]
async fn a_restarted_endpoint_has_the_ports_of_the_last_time() {
    for network in [network(), Network::loopback()] {
        let (_dir, state) = state();
        let first = started(&network, Some(&state)).await;
        let ports = ports_of(&first);
        assert_ne!(ports.v4, 0);
        assert_eq!(state.ports().unwrap(), Some(kept(ports)));
        stop(first).await;
        let second = started(&network, Some(&state)).await;
        assert_eq!(ports_of(&second), ports);
        stop(second).await;
    }
}

#[tokio::test]
async fn a_port_that_somebody_has_taken_is_replaced_and_given_up_at_the_second_start() {
    let (_dir, state) = state();
    let taken = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let v4 = taken.local_addr().unwrap().port();
    state.set_ports(kept(Ports { v4, v6: 0 })).unwrap();
    let first = started(&network(), Some(&state)).await;
    let ports = ports_of(&first);
    assert!(ports.v4 != 0 && ports.v4 != v4, "{ports:?}");
    let wanted = state.ports().unwrap().unwrap().v4;
    assert!(wanted.port == v4 && wanted.missed, "{wanted:?}");
    stop(first).await;
    let second = started(&network(), Some(&state)).await;
    let ports = ports_of(&second);
    assert!(ports.v4 != 0 && ports.v4 != v4, "{ports:?}");
    assert_eq!(state.ports().unwrap(), Some(kept(ports)));
}

#[tokio::test]
async fn a_port_that_was_taken_once_is_not_lost() {
    let (_dir, state) = state();
    let taken = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let v4 = taken.local_addr().unwrap().port();
    state.set_ports(kept(Ports { v4, v6: 0 })).unwrap();
    stop(started(&network(), Some(&state)).await).await;
    drop(taken);
    let endpoint = started(&network(), Some(&state)).await;
    let ports = ports_of(&endpoint);
    assert_eq!(ports.v4, v4);
    assert_eq!(state.ports().unwrap(), Some(kept(ports)));
}

/// One that cannot be used costs nothing but itself.
#[tokio::test]
async fn a_port_is_kept_without_the_other_one() {
    let Ok(taken) = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)) else {
        eprintln!("this machine has no IPv6");
        return;
    };
    let (_dir, state) = state();
    let first = started(&network(), Some(&state)).await;
    let v4 = ports_of(&first).v4;
    stop(first).await;
    let v6 = taken.local_addr().unwrap().port();
    state.set_ports(kept(Ports { v4, v6 })).unwrap();
    let endpoint = started(&network(), Some(&state)).await;
    let ports = ports_of(&endpoint);
    assert_eq!(ports.v4, v4);
    assert!(ports.v6 != 0 && ports.v6 != v6, "{ports:?}");
}

#[tokio::test]
async fn somebody_with_the_same_port_of_the_other_family_is_in_nobodys_way() {
    if UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_err() {
        eprintln!("this machine has no IPv6");
        return;
    }
    let (_dir, state) = state();
    let other = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let v6 = other.local_addr().unwrap().port();
    state.set_ports(kept(Ports { v4: 0, v6 })).unwrap();
    let endpoint = started(&network(), Some(&state)).await;
    assert_eq!(ports_of(&endpoint).v6, v6);
}

#[tokio::test(start_paused = true)]
async fn a_port_is_waited_for_as_long_as_a_busy_machine_takes_to_close_it() {
    let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let (ip, port) = (address.ip(), address.port());
    assert_eq!(free_or_any(ip, port, FREE_AGAIN_MAX).await, 0);
    let closing = async {
        sleep(FREE_AGAIN_MAX - 2 * FREE_INTERVAL).await;
        drop(taken);
    };
    let (free, ()) = tokio::join!(free_or_any(ip, port, FREE_AGAIN_MAX), closing);
    assert_eq!(free, port);
}

#[tokio::test]
async fn nonsense_in_the_file_means_any_port() {
    let (_dir, state) = state();
    state.key().unwrap();
    for nonsense in ["\u{1f4a5}", "99999 1", "0 0"] {
        std::fs::write(state.path().join("udp-ports"), nonsense).unwrap();
        let endpoint = started(&network(), Some(&state)).await;
        let ports = ports_of(&endpoint);
        assert_ne!(ports.v4, 0);
        assert_eq!(state.ports().unwrap(), Some(kept(ports)), "{nonsense}");
    }
}

#[tokio::test]
async fn a_pinned_port_is_not_remembered() {
    let (_dir, state) = state();
    let before = kept(Ports { v4: 4000, v6: 0 });
    state.set_ports(before).unwrap();
    let free = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let network = Network {
        port,
        ..Network::loopback()
    };
    let endpoint = started(&network, Some(&state)).await;
    assert_eq!(ports_of(&endpoint).v4, port);
    assert_eq!(state.ports().unwrap(), Some(before));
}
