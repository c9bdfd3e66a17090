//! Owns the join protocol: one stream, one request with the ticket, one answer with the membership
//! or the reason why not.

use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use iroh::Endpoint;
use iroh::endpoint::{Connection, RecvStream, SendStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

use super::actor::{CROWDED, Input, Place};
use super::address;
use super::close::CloseCode;
use super::wire::{self, JOIN_BYTES_MAX, JOINED_BYTES_MAX, Join, Joined};
use super::{ALPN_JOIN, MeshError, Unreached, frame, unix_ms};
use crate::admission::{Membership, Refusal, Trust};
use crate::ticket::Ticket;
use crate::{Addresses, NodeId, Role};

/// How long a joiner waits for one node: finding a path through a relay takes a second or two.
const ATTEMPT_MAX: Duration = Duration::from_secs(10);

/// How long before the next node is tried beside one that has not answered yet.
const STAGGER: Duration = Duration::from_millis(1_200);

/// How long the other side may take to say what it wants, and to take the answer.
const STEP_MAX: Duration = Duration::from_secs(5);

/// What a joiner has in the end.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) membership: Membership,
    pub(crate) name: Option<String>,
    pub(crate) nodes: Vec<(NodeId, Addresses)>,
}

/// Redeems a ticket at the first node it names that admits this one.
pub(crate) async fn redeem(
    endpoint: &Endpoint,
    ticket: &Ticket,
    role: Role,
    now_unix_ms: u64,
) -> Result<Admission, MeshError> {
    let terms = ticket.terms();
    let me = address::node_of(endpoint.id());
    let mut attempts: FuturesUnordered<_> = terms
        .bootstrap
        .iter()
        .filter(|(node, _)| *node != me)
        .enumerate()
        .map(|(rank, (node, addresses))| async move {
            sleep(STAGGER * u32::try_from(rank).unwrap_or(u32::MAX)).await;
            let request = Join {
                ticket: ticket.clone(),
                role,
            };
            let asked = timeout(ATTEMPT_MAX, ask(endpoint, *node, addresses, &request)).await;
            (*node, asked.unwrap_or_else(|_| Err(Failure::silent())))
        })
        .collect();
    let mut tried = Vec::new();
    let mut refused = None;
    while let Some((node, outcome)) = attempts.next().await {
        match outcome {
            Ok(joined) => {
                let trust = Trust::new(terms.mesh, terms.root, Default::default());
                trust.check(me, &joined.membership, now_unix_ms)?;
                let mut nodes = joined.nodes;
                nodes.extend(terms.bootstrap.iter().cloned());
                return Ok(Admission {
                    membership: joined.membership,
                    name: joined.name.or_else(|| terms.name.clone()),
                    nodes,
                });
            }
            Err(Failure::Refused(refusal)) => {
                if refusal.is_final() {
                    return Err(refusal.into());
                }
                refused = Some(refusal);
            }
            Err(Failure::Network(reason)) => tried.push(Unreached { node, reason }),
        }
    }
    Err(refused.map_or(MeshError::Unreachable(tried), MeshError::Refused))
}

enum Failure {
    Refused(Refusal),
    Network(String),
}

impl Failure {
    fn silent() -> Self {
        Self::Network("no answer".into())
    }
}

async fn ask(
    endpoint: &Endpoint,
    node: NodeId,
    addresses: &Addresses,
    request: &Join,
) -> Result<Joined, Failure> {
    let network = |error: &dyn std::fmt::Display| Failure::Network(error.to_string());
    let address = address::endpoint_addr(node, addresses)
        .ok_or_else(|| Failure::Network("its id is no key".into()))?;
    let connection = endpoint
        .connect(address, ALPN_JOIN)
        .await
        .map_err(|error| network(&error))?;
    let (mut send, mut recv) = connection
        .open_bi()
        .await
        .map_err(|error| network(&error))?;
    frame::write(&mut send, &request.to_bytes())
        .await
        .map_err(|error| network(&error))?;
    let answer = frame::read_within(&mut recv, JOINED_BYTES_MAX, ATTEMPT_MAX)
        .await
        .map_err(|error| network(&error))?;
    CloseCode::Done.close(&connection, "");
    wire::joined_from_bytes(&answer)
        .map_err(|error| network(&error))?
        .map_err(Failure::Refused)
}

/// Answers one join connection. The actor decides.
pub(crate) async fn answer(
    connection: Connection,
    place: Place,
    trust: watch::Receiver<Trust>,
    inputs: mpsc::Sender<Input>,
) {
    let node = address::node_of(connection.remote_id());
    let refused = match answer_inner(&connection, node, place, &trust, &inputs).await {
        Ok(None) => None,
        Ok(Some(refusal)) => Some(refusal.to_string()),
        Err(reason) => Some(reason),
    };
    CloseCode::Done.close(&connection, "");
    if let Some(reason) = refused {
        let input = Input::TurnedAway {
            node,
            what: "did not let a node join",
            reason,
        };
        // Who is busy with more can do without.
        let _ = inputs.try_send(input);
    }
}

async fn answer_inner(
    connection: &Connection,
    node: NodeId,
    mut place: Place,
    trust: &watch::Receiver<Trust>,
    inputs: &mpsc::Sender<Input>,
) -> Result<Option<Refusal>, String> {
    let Some(heard) = place.hold(hear(connection)).await else {
        CloseCode::Done.close(connection, CROWDED);
        return Err(CROWDED.into());
    };
    let (mut send, _recv, bytes) = heard?;
    let outcome = match Join::from_bytes(&bytes) {
        Ok(request) => decide(node, request, trust, inputs).await,
        Err(error) => {
            tracing::debug!(peer = %node.short(), %error, "unreadable request to join");
            Err(Refusal::Malformed)
        }
    };
    let answer = wire::joined_to_bytes(&outcome);
    let told = tell(connection, &mut send, &answer);
    if outcome.is_ok() {
        // Whoever was admitted is no stranger any more.
        drop(place);
        told.await?;
    } else if let Some(told) = place.hold(told).await {
        told?;
    } else {
        CloseCode::Done.close(connection, CROWDED);
    }
    Ok(outcome.err())
}

/// The bytes of the request, and the stream that they came on.
async fn hear(connection: &Connection) -> Result<(SendStream, RecvStream, Vec<u8>), String> {
    let (send, mut recv) = timeout(STEP_MAX, connection.accept_bi())
        .await
        .map_err(|_| misbehaved(connection, "it asked nothing in time".into()))?
        .map_err(|error| error.to_string())?;
    let bytes = frame::read_within(&mut recv, JOIN_BYTES_MAX, STEP_MAX)
        .await
        .map_err(|error| misbehaved(connection, error.to_string()))?;
    Ok((send, recv, bytes))
}

/// What this node says to a request.
async fn decide(
    node: NodeId,
    request: Join,
    trust: &watch::Receiver<Trust>,
    inputs: &mpsc::Sender<Input>,
) -> Result<Joined, Refusal> {
    // Here and not at the actor: whoever has no ticket that holds takes none of its time, and none of
    // the turns of those who have one.
    let trust_now = trust.borrow().clone();
    trust_now.check_ticket(&request.ticket, unix_ms())?;
    // The set of revocations is copied for each change that is made while this is kept.
    drop(trust_now);
    let (reply, answer) = oneshot::channel();
    let input = Input::Join {
        node,
        request,
        reply,
    };
    if inputs.send(input).await.is_err() {
        return Err(Refusal::Leaving);
    }
    answer.await.unwrap_or(Err(Refusal::Leaving))
}

async fn tell(connection: &Connection, send: &mut SendStream, answer: &[u8]) -> Result<(), String> {
    frame::write(send, answer)
        .await
        .map_err(|error| misbehaved(connection, error.to_string()))?;
    // Fails only if the joiner is gone already.
    let _ = send.finish();
    let _ = timeout(STEP_MAX, send.stopped()).await;
    Ok(())
}

fn misbehaved(connection: &Connection, reason: String) -> String {
    CloseCode::Misbehaved.close(connection, &reason);
    reason
}
