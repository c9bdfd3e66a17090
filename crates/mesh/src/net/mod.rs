//! Owns the iroh endpoint, connections and streams, and the actor that drives `proto`.
//!
//! Three protocols: `join` redeems a ticket; `peer` connects two members, one connection for each pair;
//! `bulk` is beside that one, opened by who fetches much, and ends with it. Both sides of a `peer` or
//! `bulk` connection show their membership first. The first stream of `peer` then carries the
//! messages of `proto`; all others belong to the application, after one byte that says what they are.
//!
//! What is read here has a size limit, and a deadline once it is due: first messages, messages of
//! `proto`, the byte at the start of a stream. How many messages, bytes of these and streams a member
//! sends in a second is limited too; a member that breaks a rule loses the connection and is not let
//! in for a while. Strangers can't be told apart like that, because keys and ports cost nothing: a
//! bounded number of connections begins at once, where those of one address make way for others
//! first; tickets are redeemed at a bounded rate; and so are warnings about both. What is in the
//! streams of the application is bounded by QUIC's windows alone: limits of sizes and rates, and
//! deadlines, are the application's business there. Membership is decided in `admission` and `proto`.

mod actor;
mod address;
mod bulk;
mod clock;
mod close;
mod congestion;
mod endpoint;
mod error;
mod frame;
mod hello;
mod join;
mod links;
mod peer;
mod scavenger;
mod settings;
mod stream;

// The first messages of a connection, which the fuzz targets read without any network.
use crate::wire;

pub use error::{MeshError, Unreached};
pub use links::{Link, Path};
pub use settings::{Network, Relays, Settings};
pub use stream::{IncomingStream, RecvStream, SendStream, StreamKind, Streams};

pub use actor::MemberStatus;
pub(crate) use actor::{Actor, Command, DIALS_MAX, OpenPeer, Running, Start};
pub(crate) use endpoint::bind;
pub(crate) use join::{Admission, redeem};
pub(crate) use stream::halves;

/// Redeeming a ticket.
pub const ALPN_JOIN: &[u8] = b"mesh-llm/join/1";

/// Members among each other.
pub const ALPN_PEER: &[u8] = b"mesh-llm/peer/1";

/// Members that give each other much, beside their connection for all else.
pub const ALPN_BULK: &[u8] = b"mesh-llm/bulk/1";

/// The wall clock, in milliseconds since 1970; 0 if it stands before.
pub(crate) fn unix_ms() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}
