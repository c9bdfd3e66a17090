//! Owns the settings of the iroh endpoint and of its QUIC connections, and at which ports it is bound.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use iroh::endpoint::{
    BindError, BindOpts, Builder, QuicTransportConfig, QuicTransportConfigBuilder, VarInt, presets,
};
use iroh::{Endpoint, RelayConfig, RelayMap, RelayMode, RelayUrl, SecretKey};
use iroh_mdns_address_lookup::MdnsAddressLookup;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::time::{Instant, sleep};

use super::congestion::FlooredCubic;
use super::{ALPN_JOIN, ALPN_PEER, MeshError, Network, Relays};
use crate::identity::{KeptPorts, Ports, StateDir};

/// Most unread bytes of one stream. With 4 MiB connections were seen to die of "too many gaps".
const STREAM_WINDOW_BYTES: u32 = 2 * 1_024 * 1_024;

/// Most unread bytes of one connection: a few streams whose readers are slow.
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1_024 * 1_024;

/// Most unacknowledged bytes towards one peer.
const SEND_WINDOW_BYTES: u64 = 16 * 1_024 * 1_024;

/// Most streams that a peer may have open: requests that run at once between two nodes.
const STREAMS_MAX: u32 = 512;

/// Name under which members announce themselves by multicast.
const LOCAL_SERVICE: &str = "mesh-llm";

/// How long a port of the last time is waited for where this process had an endpoint before: one that
/// was just left closes its sockets in the background, which takes a while on a busy machine.
const FREE_AGAIN_MAX: Duration = Duration::from_secs(2);

/// The same for the first endpoint of a process. Only another program can have the port, such as the last
/// run of this one, which ends.
const FREE_FIRST_MAX: Duration = Duration::from_millis(200);

/// How long between two tries.
const FREE_INTERVAL: Duration = Duration::from_millis(25);

/// Whether this process has had an endpoint, whose sockets may be open still.
static HAD_ENDPOINT: AtomicBool = AtomicBool::new(false);

/// Opens the endpoint of a node. Accepting connections is up to the caller.
///
/// Where no port is asked for it takes those that `state` remembers, so that addresses which others
/// have written down lead here again; whichever are free instead if these are not. It then remembers
/// the ports it has, but for one that was not to be had for the first time: the next start tries that
/// again.
pub(crate) async fn bind(
    key: SecretKey,
    network: &Network,
    state: Option<&StateDir>,
) -> Result<Endpoint, MeshError> {
    let wait_max = match HAD_ENDPOINT.swap(true, Ordering::Relaxed) {
        true => FREE_AGAIN_MAX,
        false => FREE_FIRST_MAX,
    };
    bind_within(wait_max, key, network, state).await
}

/// The same, where each port is waited for so long.
async fn bind_within(
    wait_max: Duration,
    key: SecretKey,
    network: &Network,
    state: Option<&StateDir>,
) -> Result<Endpoint, MeshError> {
    let pinned = Ports {
        v4: network.port,
        v6: network.port,
    };
    let Some(state) = state.filter(|_| network.direct && network.port == 0) else {
        return bind_at(key, network, pinned).await;
    };
    let kept = state.ports().unwrap_or_else(|error| {
        tracing::debug!(%error, "the ports of the last time are not known");
        None
    });
    let kept: KeptPorts = kept.unwrap_or_default();
    let free = still_free(kept.wanted(), network.ip, wait_max).await;
    let endpoint = match bind_at(key.clone(), network, free).await {
        Err(error) if free != Ports::default() => {
            tracing::debug!(%error, ?free, "the ports of the last time can't be used");
            bind_at(key, network, Ports::default()).await?
        }
        bound => bound?,
    };
    let next = kept.after(ports_of(&endpoint));
    if kept != next
        && let Err(error) = state.set_ports(next)
    {
        tracing::debug!(%error, "the next start will take other ports");
    }
    Ok(endpoint)
}

/// Those of `wanted` that can be used, if this machine has such addresses at all.
async fn still_free(wanted: Ports, ip: Option<IpAddr>, wait_max: Duration) -> Ports {
    let v4 = ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    let v6 = ip.unwrap_or(Ipv6Addr::UNSPECIFIED.into());
    // The other family has no socket.
    let v4_port = if v4.is_ipv4() { wanted.v4 } else { 0 };
    let v6_port = if v6.is_ipv6() { wanted.v6 } else { 0 };
    let (v4, v6) = tokio::join!(
        free_or_any(v4, v4_port, wait_max),
        free_or_any(v6, v6_port, wait_max)
    );
    Ports { v4, v6 }
}

/// `port` if it can be used within so long; 0 if not, which means any.
async fn free_or_any(ip: IpAddr, port: u16, wait_max: Duration) -> u16 {
    if port == 0 {
        return 0;
    }
    let until = Instant::now() + wait_max;
    loop {
        match try_socket(SocketAddr::from((ip, port))) {
            Ok(()) => return port,
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < until => {
                sleep(FREE_INTERVAL).await;
            }
            Err(error) => {
                tracing::debug!(%ip, port, %error, "the UDP port of the last time is not to be had");
                return 0;
            }
        }
    }
}

/// Opens a socket as iroh does, and closes it: one for IPv6 leaves the same port of IPv4 alone, whoever
/// has that.
fn try_socket(address: SocketAddr) -> std::io::Result<()> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())
}

fn ports_of(endpoint: &Endpoint) -> Ports {
    let bound = endpoint.bound_sockets();
    let port = |is_meant: fn(&SocketAddr) -> bool| {
        let socket = bound.iter().copied().find(is_meant);
        socket.map_or(0, |socket| socket.port())
    };
    Ports {
        v4: port(SocketAddr::is_ipv4),
        v6: port(SocketAddr::is_ipv6),
    }
}

async fn bind_at(key: SecretKey, network: &Network, ports: Ports) -> Result<Endpoint, MeshError> {
    if !network.direct && network.relays == Relays::None {
        return Err(MeshError::NoPath);
    }
    let builder = relays(&network.relays)?
        .secret_key(key)
        .alpns(vec![ALPN_JOIN.to_vec(), ALPN_PEER.to_vec()])
        .transport_config(transport(network.idle).build());
    let endpoint = sockets(builder, network, ports)?
        .bind()
        .await
        .map_err(|error| why_not_bound(&error, network.port))?;
    if network.local_discovery && network.direct {
        discover_locally(&endpoint);
    }
    Ok(endpoint)
}

fn why_not_bound(error: &BindError, port: u16) -> MeshError {
    match error {
        BindError::Sockets { source, .. } if source.kind() == ErrorKind::AddrInUse && port != 0 => {
            MeshError::PortInUse(port)
        }
        BindError::Sockets { source, .. } => MeshError::Bind(source.to_string()),
        error => MeshError::Bind(error.to_string()),
    }
}

fn relays(relays: &Relays) -> Result<Builder, MeshError> {
    Ok(match relays {
        Relays::Public => Endpoint::builder(presets::N0),
        Relays::Own(urls) => {
            let map = RelayMap::empty();
            for url in urls {
                let parsed: RelayUrl = url.parse().map_err(|_| MeshError::Relay(url.clone()))?;
                // No port for QUIC address discovery: a wrong guess delays the start by seconds.
                map.insert(parsed.clone(), Arc::new(RelayConfig::new(parsed, None)));
            }
            Endpoint::builder(presets::Minimal).relay_mode(RelayMode::Custom(map))
        }
        Relays::None => Endpoint::builder(presets::Minimal).relay_mode(RelayMode::Disabled),
    })
}

fn sockets(builder: Builder, network: &Network, ports: Ports) -> Result<Builder, MeshError> {
    let failed = |error: &dyn std::fmt::Display| MeshError::Bind(error.to_string());
    if !network.direct {
        return Ok(builder.clear_ip_transports());
    }
    match network.ip {
        None if ports == Ports::default() => Ok(builder),
        None => builder
            .clear_ip_transports()
            .bind_addr(SocketAddr::from((Ipv4Addr::UNSPECIFIED, ports.v4)))
            .map_err(|error| failed(&error))?
            // Machines without IPv6 are common, and so are those where it is switched off.
            .bind_addr_with_opts(
                SocketAddr::from((Ipv6Addr::UNSPECIFIED, ports.v6)),
                BindOpts::default().set_is_required(false),
            )
            .map_err(|error| failed(&error)),
        Some(ip) => {
            let port = if ip.is_ipv4() { ports.v4 } else { ports.v6 };
            builder
                .clear_ip_transports()
                .bind_addr(SocketAddr::from((ip, port)))
                .map_err(|error| failed(&error))
        }
    }
}

/// QUIC settings of all connections. Those for bulk change some.
pub(super) fn transport(idle: Duration) -> QuicTransportConfigBuilder {
    let idle_ms = u32::try_from(idle.as_millis()).unwrap_or(u32::MAX);
    QuicTransportConfig::builder()
        .congestion_controller_factory(Arc::new(FlooredCubic))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(VarInt::from_u32(idle_ms).into()))
        .keep_alive_interval(idle / 4)
}

/// Members on the same network find each other's addresses without any server.
fn discover_locally(endpoint: &Endpoint) {
    let lookup = MdnsAddressLookup::builder()
        .service_name(LOCAL_SERVICE)
        .build(endpoint.id());
    match (lookup, endpoint.address_lookup()) {
        (Ok(lookup), Ok(services)) => services.add(lookup),
        (Err(error), _) => tracing::info!(%error, "no multicast on this network"),
        (_, Err(error)) => tracing::debug!(%error, "the endpoint is closed"),
    }
}

#[cfg(test)]
mod tests;
