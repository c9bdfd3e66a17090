//! Owns the settings of the iroh endpoint and of its QUIC connections.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use iroh::endpoint::{BindError, BindOpts, Builder, QuicTransportConfig, VarInt, presets};
use iroh::{Endpoint, RelayConfig, RelayMap, RelayMode, RelayUrl, SecretKey};
use iroh_mdns_address_lookup::MdnsAddressLookup;

use super::congestion::FlooredCubic;
use super::{ALPN_JOIN, ALPN_PEER, MeshError, Network, Relays};

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

/// Opens the endpoint of a node. Accepting connections is up to the caller.
pub(crate) async fn bind(key: SecretKey, network: &Network) -> Result<Endpoint, MeshError> {
    if !network.direct && network.relays == Relays::None {
        return Err(MeshError::NoPath);
    }
    let builder = relays(&network.relays)?
        .secret_key(key)
        .alpns(vec![ALPN_JOIN.to_vec(), ALPN_PEER.to_vec()])
        .transport_config(transport(network.idle));
    let endpoint = sockets(builder, network)?
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

fn sockets(builder: Builder, network: &Network) -> Result<Builder, MeshError> {
    let failed = |error: &dyn std::fmt::Display| MeshError::Bind(error.to_string());
    if !network.direct {
        return Ok(builder.clear_ip_transports());
    }
    match (network.ip, network.port) {
        (None, 0) => Ok(builder),
        (None, port) => builder
            .clear_ip_transports()
            .bind_addr(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))
            .map_err(|error| failed(&error))?
            // Machines without IPv6 are common, and so are those where it is switched off.
            .bind_addr_with_opts(
                SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
                BindOpts::default().set_is_required(false),
            )
            .map_err(|error| failed(&error)),
        (Some(ip), port) => builder
            .clear_ip_transports()
            .bind_addr(SocketAddr::from((ip, port)))
            .map_err(|error| failed(&error)),
    }
}

/// QUIC settings of all connections.
fn transport(idle: Duration) -> QuicTransportConfig {
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
        .build()
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
