//! Owns the beginning of a peer connection: both sides show their membership before anything else.

use std::sync::Arc;
use std::time::Duration;

use iroh::endpoint::{Connection, RecvStream, SendStream};
use tokio::time::timeout;

use super::close::CloseCode;
use super::wire::{self, ANSWER_BYTES_MAX, HELLO_BYTES_MAX, Hello, Rejection};
use super::{address, frame, unix_ms};
use crate::admission::{Certificate, Refusal, Revocation, Trust};
use crate::{Addresses, NodeId, Role};

/// How long a peer may take to show its membership.
const HELLO_MAX: Duration = Duration::from_secs(5);

/// How long a refused peer may take to read why.
const REFUSED_MAX: Duration = Duration::from_secs(2);

/// A peer whose membership was checked.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) node: NodeId,
    pub(crate) role: Role,
    pub(crate) chain: Arc<[Certificate]>,
    pub(crate) instance: u64,
    pub(crate) addresses: Addresses,
    pub(crate) connection: Connection,
}

/// Why a connection did not come to stand.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum HelloError {
    #[error("{0}")]
    Network(String),
    #[error("it refused: {}", .0.refusal)]
    RefusedByPeer(Rejection),
    #[error("{0}")]
    NotAMember(Refusal),
    #[error("it broke the protocol: {0}")]
    Misbehaved(String),
}

/// The dialler's side: shows the membership, and checks the one that comes back.
pub(crate) async fn dial(
    connection: &Connection,
    hello: &Hello,
    trust: &Trust,
) -> Result<(Candidate, SendStream, RecvStream), HelloError> {
    let (mut send, mut recv) = connection
        .open_bi()
        .await
        .map_err(|error| HelloError::Network(error.to_string()))?;
    frame::write(&mut send, &hello.to_bytes())
        .await
        .map_err(|error| HelloError::Network(error.to_string()))?;
    let answer = frame::read_within(&mut recv, ANSWER_BYTES_MAX, HELLO_MAX)
        .await
        .map_err(|error| HelloError::Network(error.to_string()))?;
    let theirs = wire::answer_from_bytes(&answer)
        .map_err(|error| misbehaved(connection, error.to_string()))?
        .map_err(HelloError::RefusedByPeer)?;
    let candidate = check(connection, theirs, trust).map_err(|rejection| {
        CloseCode::Expelled.close(connection, rejection.refusal.code());
        HelloError::NotAMember(rejection.refusal)
    })?;
    Ok((candidate, send, recv))
}

/// The acceptor's side up to the decision: reads and checks the peer's membership.
pub(crate) async fn receive(
    connection: &Connection,
    trust: &Trust,
) -> Result<(Result<Candidate, Rejection>, SendStream, RecvStream), HelloError> {
    let (send, mut recv) = timeout(HELLO_MAX, connection.accept_bi())
        .await
        .map_err(|_| misbehaved(connection, "it showed no membership in time".into()))?
        .map_err(|error| HelloError::Network(error.to_string()))?;
    let bytes = frame::read_within(&mut recv, HELLO_BYTES_MAX, HELLO_MAX)
        .await
        .map_err(|error| misbehaved(connection, error.to_string()))?;
    let theirs = match Hello::from_bytes(&bytes) {
        Ok(theirs) => theirs,
        Err(error) => {
            let peer = address::node_of(connection.remote_id());
            tracing::debug!(peer = %peer.short(), %error, "unreadable hello");
            return Ok((Err(Refusal::Malformed.into()), send, recv));
        }
    };
    Ok((check(connection, theirs, trust), send, recv))
}

/// Lets the peer in.
pub(crate) async fn welcome(
    connection: &Connection,
    send: &mut SendStream,
    hello: &Hello,
) -> Result<(), HelloError> {
    frame::write(send, &wire::answer_to_bytes(Ok(hello)))
        .await
        .map_err(|error| misbehaved(connection, error.to_string()))
}

/// Tells the peer why it is not let in, and ends the connection when it has read that.
pub(crate) async fn refuse(connection: &Connection, send: &mut SendStream, rejection: &Rejection) {
    if frame::write(send, &wire::answer_to_bytes(Err(rejection)))
        .await
        .is_ok()
    {
        // Fails only if the peer is gone already.
        let _ = send.finish();
        let _ = timeout(REFUSED_MAX, send.stopped()).await;
    }
    CloseCode::Done.close(connection, rejection.refusal.code());
}

fn check(connection: &Connection, theirs: Hello, trust: &Trust) -> Result<Candidate, Rejection> {
    let node = address::node_of(connection.remote_id());
    let standing = trust
        .check(node, &theirs.membership, unix_ms())
        .map_err(|refusal| Rejection {
            proof: matches!(refusal, Refusal::Expelled | Refusal::TicketRevoked)
                .then(|| trust.cut_by(&theirs.membership.chain))
                .flatten()
                .map(Revocation::to_bytes),
            refusal,
        })?;
    Ok(Candidate {
        node,
        role: standing.role,
        chain: theirs.membership.chain.into(),
        instance: theirs.instance,
        addresses: theirs.addresses,
        connection: connection.clone(),
    })
}

fn misbehaved(connection: &Connection, reason: String) -> HelloError {
    CloseCode::Misbehaved.close(connection, &reason);
    HelloError::Misbehaved(reason)
}
