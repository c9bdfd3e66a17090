//! Owns connections for bulk: at most one in each direction beside the connection to a peer, and none without that
//! one. They carry streams of the application and nothing else: whether a peer lives, and what it says, is told by the
//! other connection alone.

use iroh::endpoint::Connection;
use iroh::{Endpoint, EndpointAddr};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::{Duration, timeout};

use super::super::close::CloseCode;
use super::super::hello::{self, Candidate, HelloError};
use super::super::links::{Path, bytes_of, path_of};
use super::super::peer::{Acceptor, Ending, serve_streams};
use super::super::stream::InUse;
use super::connections::{Context, let_in};
use super::dial::{WAITERS_MAX, copy, dial_error};
use super::handshakes::Place;
use super::input::BulkRegistered;
use super::{Actor, Event, Input, MeshError, OpenPeer, Refusal};
use crate::proto::DIAL_MS_MAX;
use crate::{Addresses, NodeId};

/// How long a connection that this node opened stays without streams, in milliseconds. Who fetches asks again within
/// seconds.
const UNUSED_MS: u64 = 30_000;

/// The same for one that the peer opened, in milliseconds. Longer, because who opens the streams knows best when there are
/// no more.
const UNUSED_THEIRS_MS: u64 = 2 * UNUSED_MS;

/// Who waits for a connection.
type Waiter = oneshot::Sender<Result<OpenPeer, MeshError>>;

/// The connections for bulk with one peer.
#[derive(Default)]
pub(super) struct Bulk {
    ours: Ours,
    theirs: Option<Lane>,
    /// Bytes that were sent and received on those that have ended.
    past_bytes: (u64, u64),
}

/// The one that this node opens.
#[derive(Default)]
enum Ours {
    #[default]
    None,
    Dialling(Dialling),
    Open(Lane),
}

/// One that stands. It is closed when this is dropped.
struct Lane {
    connection: Connection,
    serial: u64,
    in_use: InUse,
    /// Owners of the mark that are no streams.
    in_use_base: usize,
    unused_since_ms: Option<u64>,
}

/// One that is being opened. The dial ends when this is dropped.
struct Dialling {
    node: NodeId,
    serial: u64,
    task: AbortHandle,
    waiters: Vec<Waiter>,
}

impl Lane {
    fn open(&self) -> OpenPeer {
        OpenPeer {
            connection: self.connection.clone(),
            in_use: self.in_use.clone(),
        }
    }

    fn halves(&self) -> usize {
        InUse::strong_count(&self.in_use).saturating_sub(self.in_use_base)
    }

    /// Whether it had no streams for so long.
    fn is_unused(&mut self, now_ms: u64, unused_ms: u64) -> bool {
        if self.halves() > 0 {
            self.unused_since_ms = None;
            return false;
        }
        let since_ms = *self.unused_since_ms.get_or_insert(now_ms);
        now_ms >= since_ms + unused_ms
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // Changes nothing if it was closed for another reason.
        CloseCode::Released.close(&self.connection, "not needed");
    }
}

impl Drop for Dialling {
    fn drop(&mut self) {
        self.task.abort();
        let reason = "the connection to it ended";
        answer(self.waiters.drain(..), &lost(self.node, reason));
    }
}

impl Bulk {
    /// Open halves of application streams.
    pub(super) fn halves(&self) -> usize {
        self.lanes().map(Lane::halves).sum()
    }

    /// Bytes sent and received in UDP packets.
    pub(super) fn bytes(&self) -> (u64, u64) {
        self.lanes().fold(self.past_bytes, |sum, lane| {
            let (sent, received) = bytes_of(&lane.connection);
            (sum.0 + sent, sum.1 + received)
        })
    }

    /// Says why, before they end with this.
    pub(super) fn close(&self, code: CloseCode, reason: &str) {
        for lane in self.lanes() {
            code.close(&lane.connection, reason);
        }
    }

    fn lanes(&self) -> impl Iterator<Item = &Lane> {
        let ours = match &self.ours {
            Ours::Open(lane) => Some(lane),
            Ours::None | Ours::Dialling(_) => None,
        };
        ours.into_iter().chain(&self.theirs)
    }

    /// Lets those go that are as wanted.
    fn end(&mut self, mut is_wanted: impl FnMut(&mut Lane, bool) -> bool) {
        let is_over = match &mut self.ours {
            Ours::Open(lane) => is_wanted(lane, true),
            Ours::None | Ours::Dialling(_) => false,
        };
        if is_over && let Ours::Open(lane) = std::mem::take(&mut self.ours) {
            self.count(&lane);
        }
        if let Some(lane) = self.theirs.take_if(|lane| is_wanted(lane, false)) {
            self.count(&lane);
        }
    }

    /// Keeps in mind what one that ends has carried.
    fn count(&mut self, lane: &Lane) {
        let (sent, received) = bytes_of(&lane.connection);
        self.past_bytes.0 += sent;
        self.past_bytes.1 += received;
    }
}

fn lost(node: NodeId, reason: &str) -> MeshError {
    MeshError::Peer {
        node,
        reason: reason.into(),
    }
}

fn answer(waiters: impl IntoIterator<Item = Waiter>, error: &MeshError) {
    for waiter in waiters {
        // Fails only if nobody waits any more.
        let _ = waiter.send(Err(copy(error)));
    }
}

impl Actor {
    /// A connection for bulk to a peer that is connected, at once or after a dial.
    pub(super) fn open_bulk(&mut self, node: NodeId, reply: Waiter) {
        let Some(peer) = self.peers.get_mut(&node) else {
            answer([reply], &lost(node, "the connection to it was lost"));
            return;
        };
        match &mut peer.bulk.ours {
            Ours::Open(lane) if lane.connection.close_reason().is_none() => {
                // Fails only if nobody waits any more.
                let _ = reply.send(Ok(lane.open()));
                return;
            }
            Ours::Dialling(dialling) if dialling.waiters.len() < WAITERS_MAX => {
                dialling.waiters.push(reply);
                return;
            }
            Ours::Dialling(_) => {
                let _ = reply.send(Err(MeshError::TooMany("streams that wait for one node")));
                return;
            }
            Ours::None | Ours::Open(_) => {}
        }
        peer.bulk.end(|_, is_ours| is_ours);
        // The way that the other connection has found comes first.
        let (direct, relay) = match path_of(&peer.connection).0 {
            Path::Direct(address) => (Some(address), None),
            Path::Relayed(url) => (None, Some(url)),
            Path::Unknown => (None, None),
        };
        let announced = self.announced_addresses(node);
        let direct = direct.into_iter().chain(announced.direct().iter().copied());
        let relay = relay.or_else(|| announced.relay().map(String::from));
        let Some(target) = self.target(node, &Addresses::new(direct, relay)) else {
            answer([reply], &lost(node, "its id is no key"));
            return;
        };
        self.next_serial += 1;
        let serial = self.next_serial;
        let dial = dial(self.endpoint.clone(), target, node, serial, self.context());
        let task = self.tasks.spawn(dial);
        let dialling = Dialling {
            node,
            serial,
            task,
            waiters: vec![reply],
        };
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.bulk.ours = Ours::Dialling(dialling);
        }
    }

    /// A dial of [`open_bulk`](Self::open_bulk) is over.
    pub(super) fn bulk_dialled(
        &mut self,
        node: NodeId,
        serial: u64,
        outcome: Result<Candidate, HelloError>,
    ) {
        let peer = self.peers.get_mut(&node).filter(
            |peer| matches!(&peer.bulk.ours, Ours::Dialling(dialling) if dialling.serial == serial),
        );
        let Some(peer) = peer else {
            if let Ok(candidate) = outcome {
                CloseCode::Released.close(&candidate.connection, "not needed");
            }
            return;
        };
        let Ours::Dialling(mut dialling) = std::mem::take(&mut peer.bulk.ours) else {
            return;
        };
        let waiters = std::mem::take(&mut dialling.waiters);
        let candidate = match outcome {
            Ok(candidate) if candidate.instance == peer.instance => candidate,
            Ok(candidate) => {
                CloseCode::Released.close(&candidate.connection, "not needed");
                answer(waiters, &lost(node, "it was started anew"));
                return;
            }
            Err(error) => {
                tracing::debug!(peer = %node.short(), %error, "a dial for bulk failed");
                // Whether a member wants this node is told by the other connection, which stands.
                if let HelloError::RefusedByPeer(rejection) = &error {
                    self.note_proof(rejection);
                }
                answer(waiters, &dial_error(node, error));
                return;
            }
        };
        let lane = Lane {
            connection: candidate.connection.clone(),
            serial,
            in_use: InUse::default(),
            // The table.
            in_use_base: 1,
            unused_since_ms: None,
        };
        for waiter in waiters {
            // Fails only if nobody waits any more.
            let _ = waiter.send(Ok(lane.open()));
        }
        peer.bulk.ours = Ours::Open(lane);
        tracing::debug!(peer = %node.short(), "connected for bulk");
        self.watch_bulk(node, serial, candidate.connection);
    }

    /// Has it told when a connection ends on which nobody accepts streams.
    fn watch_bulk(&mut self, node: NodeId, serial: u64, connection: Connection) {
        let inputs = self.inputs_sender.clone();
        self.tasks.spawn(async move {
            let reason = connection.closed().await.to_string();
            let closed = Input::BulkClosed {
                node,
                serial,
                ending: Ending::Lost(reason),
            };
            // Fails only when the actor is gone.
            let _ = inputs.send(closed).await;
        });
    }

    /// Takes up a checked peer's connection for bulk, or says why not.
    pub(super) fn register_bulk(
        &mut self,
        candidate: Candidate,
        reply: oneshot::Sender<Result<BulkRegistered, Refusal>>,
    ) {
        let node = candidate.node;
        let door = self.check_door(node);
        let peer = self
            .peers
            .get_mut(&node)
            .filter(|peer| peer.instance == candidate.instance);
        let peer = match (door, peer) {
            (Ok(()), Some(peer)) => peer,
            (refused, _) => {
                let alone = || Refusal::Other("there is no connection for all else".into());
                // Fails only if the task is gone, and its connection with it.
                let _ = reply.send(Err(refused.err().unwrap_or_else(alone)));
                return;
            }
        };
        self.next_serial += 1;
        let serial = self.next_serial;
        let in_use = InUse::default();
        let registered = BulkRegistered {
            serial,
            in_use: in_use.clone(),
        };
        if reply.send(Ok(registered)).is_err() {
            return;
        }
        if let Some(old) = &peer.bulk.theirs {
            CloseCode::Replaced.close(&old.connection, "a newer connection");
        }
        peer.bulk.end(|_, is_ours| !is_ours);
        peer.bulk.theirs = Some(Lane {
            connection: candidate.connection,
            serial,
            in_use,
            // The table and the acceptor.
            in_use_base: 2,
            unused_since_ms: None,
        });
        tracing::debug!(peer = %node.short(), "accepted a connection for bulk");
    }

    pub(super) fn bulk_closed(&mut self, node: NodeId, serial: u64, ending: &Ending) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.bulk.end(|lane, _| lane.serial == serial);
        }
        match ending {
            Ending::Fault(reason) => {
                tracing::warn!(peer = %node.short(), %reason, "cut a peer off");
                let now_ms = self.now_ms();
                self.penalties.add(node, now_ms);
                if self.cut(node, CloseCode::Misbehaved, reason) {
                    self.event(Event::PeerClosed { node, clean: false });
                }
            }
            Ending::Expelled(reason) => {
                tracing::info!(peer = %node.short(), %reason, "cut an expelled member off");
                self.cut_revoked();
            }
            Ending::Ours | Ending::Theirs(_) | Ending::Lost(_) => {
                tracing::debug!(peer = %node.short(), ?ending, "a connection for bulk closed");
            }
        }
    }

    /// Closes those on which nothing happens.
    pub(super) fn close_unused_bulk(&mut self) {
        let now_ms = self.now_ms();
        for peer in self.peers.values_mut() {
            peer.bulk.end(|lane, is_ours| {
                let unused_ms = if is_ours { UNUSED_MS } else { UNUSED_THEIRS_MS };
                lane.is_unused(now_ms, unused_ms)
            });
        }
    }
}

async fn dial(
    endpoint: Endpoint,
    target: EndpointAddr,
    node: NodeId,
    serial: u64,
    context: Context,
) {
    let deadline = Duration::from_millis(DIAL_MS_MAX);
    let dialled = timeout(deadline, enter(&endpoint, target, &context)).await;
    let outcome = dialled.unwrap_or_else(|_| Err(HelloError::Network("no answer".into())));
    let dialled = Input::BulkDialled {
        node,
        dial: serial,
        outcome,
    };
    // Fails only when the actor is gone.
    let _ = context.inputs.send(dialled).await;
}

async fn enter(
    endpoint: &Endpoint,
    target: EndpointAddr,
    context: &Context,
) -> Result<Candidate, HelloError> {
    let connection = context
        .bulk
        .dial(endpoint, target)
        .await
        .map_err(HelloError::Network)?;
    let trust = context.trust.borrow().clone();
    // Nothing more is said on that stream.
    let (candidate, _, _) = hello::dial(&connection, &context.hello, &trust).await?;
    Ok(candidate)
}

/// Takes the streams of a peer that may have a connection for bulk.
pub(super) async fn receive(connection: Connection, context: Context, place: Place) {
    let input = |candidate, reply| Input::RegisterBulk { candidate, reply };
    let Some(peer) = let_in(&connection, &context, place, input).await else {
        return;
    };
    let node = peer.node;
    let BulkRegistered { serial, in_use } = peer.registered;
    let ending = match peer.welcomed {
        Ok(()) => {
            let acceptor = Acceptor {
                node,
                role: peer.role,
                connection,
                chain: peer.chain,
                streams: context.streams,
                trust: context.trust,
                in_use,
                is_bulk: true,
            };
            serve_streams(acceptor).await
        }
        Err(error) => Ending::Lost(error.to_string()),
    };
    let closed = Input::BulkClosed {
        node,
        serial,
        ending,
    };
    // Fails only when the actor is gone.
    let _ = context.inputs.send(closed).await;
}
