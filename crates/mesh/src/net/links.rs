//! Owns what can be told about an open connection: its path, round trip and bytes.

use std::net::SocketAddr;
use std::time::Duration;

use iroh::TransportAddr;
use iroh::endpoint::Connection;

use crate::{NodeId, Role};

/// An open connection to another member.
#[derive(Debug, Clone, PartialEq)]
pub struct Link {
    /// To whom.
    pub node: NodeId,
    /// What the peer's membership allows.
    pub role: Role,
    /// Which way packets go.
    pub path: Path,
    /// Round trip on that way.
    pub round_trip: Duration,
    /// Bytes sent in UDP packets, over all paths, those for bulk beside it included.
    pub sent_bytes: u64,
    /// Bytes received in UDP packets, over all paths, those for bulk beside it included.
    pub received_bytes: u64,
    /// How long the connection stands.
    pub age: Duration,
    /// Application streams that are open, those for bulk included.
    pub streams: usize,
}

/// A way to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Path {
    /// Straight to this address.
    Direct(SocketAddr),
    /// Through the relay with this URL.
    Relayed(String),
    /// Not settled yet, or of a kind that this version does not know.
    Unknown,
}

/// Path and round trip now.
pub(crate) fn path_of(connection: &Connection) -> (Path, Duration) {
    let paths = connection.paths();
    let Some(path) = paths
        .iter()
        .find(|path| path.is_selected())
        .or_else(|| paths.iter().next())
    else {
        return (Path::Unknown, Duration::ZERO);
    };
    let way = match path.remote_addr() {
        TransportAddr::Ip(address) => Path::Direct(*address),
        TransportAddr::Relay(url) => Path::Relayed(url.to_string()),
        _ => Path::Unknown,
    };
    (way, path.rtt())
}

/// Bytes sent and received in UDP packets.
pub(crate) fn bytes_of(connection: &Connection) -> (u64, u64) {
    let stats = connection.stats();
    (stats.udp_tx.bytes, stats.udp_rx.bytes)
}
