//! Owns the table of open connections: who is let in, which of two connections stays, and what
//! follows when one ends.

use std::sync::Arc;

use iroh::endpoint::{Connection, Incoming, RecvStream, SendStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Duration, Instant, timeout};

use super::super::bulk::BulkSettings;
use super::super::close::CloseCode;
use super::super::hello::{self, Candidate, HelloError};
use super::super::links::{Link, bytes_of, path_of};
use super::super::peer::{Ending, OUTBOX_MAX, PeerConnection, serve};
use super::super::stream::{InUse, IncomingStream};
use super::super::wire::{Hello, Rejection};
use super::super::{ALPN_BULK, ALPN_JOIN, address, join, unix_ms};
use super::bulk::{self, Bulk};
use super::handshakes::Origin;
use super::input::Registered;
use super::{Actor, CROWDED, Event, Input, MemberStatus, Place, Refusal, Trust};
use crate::admission::Certificate;
use crate::proto::CONNECTIONS_MAX;
use crate::{Addresses, NodeId, Role};

/// How long a QUIC handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(8);

/// Two connections between the same two programs within this time are the result of both dialling
/// at once, and the one that the smaller id dialled stays. Later ones replace what must be dead.
const CROSSING_MAX: Duration = Duration::from_secs(5);

/// Owners of the mark that a connection is in use which are no streams: the table and the acceptor.
const IN_USE_BASE: usize = 2;

/// An open connection.
pub(super) struct Peer {
    pub(super) connection: Connection,
    pub(super) role: Role,
    pub(super) chain: Arc<[Certificate]>,
    pub(super) outbox: mpsc::Sender<Arc<[u8]>>,
    pub(super) serial: u64,
    pub(super) instance: u64,
    pub(super) dialled: bool,
    pub(super) since: Instant,
    pub(super) in_use: InUse,
    /// `proto` does not need it, since then nothing else did.
    pub(super) unused_since_ms: Option<u64>,
    /// Connections beside this one, which end with it.
    pub(super) bulk: Bulk,
}

impl Peer {
    /// Open halves of application streams.
    pub(super) fn halves(&self) -> usize {
        Arc::strong_count(&self.in_use).saturating_sub(IN_USE_BASE) + self.bulk.halves()
    }

    fn link(&self, node: NodeId) -> Link {
        let (path, round_trip) = path_of(&self.connection);
        let (sent_bytes, received_bytes) = bytes_of(&self.connection);
        let (bulk_sent_bytes, bulk_received_bytes) = self.bulk.bytes();
        Link {
            node,
            role: self.role,
            path,
            round_trip,
            sent_bytes: sent_bytes + bulk_sent_bytes,
            received_bytes: received_bytes + bulk_received_bytes,
            age: self.since.elapsed(),
            streams: self.halves().div_ceil(2),
        }
    }
}

/// What every task of a connection needs of the actor.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) hello: Hello,
    pub(super) trust: tokio::sync::watch::Receiver<Trust>,
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) streams: mpsc::Sender<IncomingStream>,
    pub(super) bulk: BulkSettings,
}

impl Context {
    /// Has it told that a peer was not let in.
    fn turned_away(&self, node: NodeId, reason: String) {
        let input = Input::TurnedAway {
            node,
            what: "did not let a peer in",
            reason,
        };
        // Who is busy with more can do without.
        let _ = self.inputs.try_send(input);
    }
}

impl Actor {
    pub(super) fn context(&self) -> Context {
        Context {
            hello: Hello {
                membership: self.authority.membership.clone(),
                instance: self.instance,
                addresses: self.own_addresses.clone(),
            },
            trust: self.trust.subscribe(),
            inputs: self.inputs_sender.clone(),
            streams: self.streams.clone(),
            bulk: self.bulk.clone(),
        }
    }

    /// Lets a connection begin. Where too many do, another one makes way for it.
    pub(super) fn accept(&mut self, incoming: Incoming) {
        let place = self.handshakes.enter(Origin::of(&incoming.remote_addr()));
        let context = self.context();
        self.tasks.spawn(async move {
            if let Some(peer) = begin(incoming, context, place).await {
                serve(peer).await;
            }
        });
    }

    /// Takes a checked peer into the table, or says why not.
    pub(super) fn register(
        &mut self,
        candidate: Candidate,
        dial: Option<u64>,
        reply: oneshot::Sender<Result<Registered, Refusal>>,
    ) {
        let node = candidate.node;
        let decision = match dial {
            Some(serial) => self.decide_dialled(node, serial),
            None => self.decide_incoming(&candidate),
        };
        if let Err(refusal) = decision {
            // Fails only if the task is gone, and its connection with it.
            let _ = reply.send(Err(refusal));
            return;
        }
        self.next_serial += 1;
        let serial = self.next_serial;
        let (outbox, outbox_receiver) = mpsc::channel(OUTBOX_MAX);
        let in_use = InUse::default();
        let registered = Registered {
            serial,
            outbox: outbox_receiver,
            in_use: in_use.clone(),
        };
        if reply.send(Ok(registered)).is_err() {
            return;
        }
        let peer = Peer {
            connection: candidate.connection,
            role: candidate.role,
            chain: candidate.chain.clone(),
            outbox,
            serial,
            instance: candidate.instance,
            dialled: dial.is_some(),
            since: Instant::now(),
            in_use,
            unused_since_ms: None,
            bulk: Bulk::default(),
        };
        self.chains.insert(node, candidate.chain);
        self.learn_addresses(node, candidate.addresses);
        if let Some(old) = self.peers.insert(node, peer) {
            CloseCode::Replaced.close(&old.connection, "a newer connection");
        }
        tracing::debug!(peer = %node.short(), role = %candidate.role, dialled = dial.is_some(), "connected");
        self.settle_dial(node);
        if matches!(*self.status.borrow(), MemberStatus::Refused { .. }) {
            self.status.send_replace(MemberStatus::Member);
        }
        self.event(Event::PeerConnected {
            node,
            role: candidate.role,
        });
        // The handshake has measured one.
        self.tell_round_trips(Some(node));
    }

    /// Whether anybody is let in now, and this node in particular.
    pub(super) fn check_door(&self, node: NodeId) -> Result<(), Refusal> {
        if self.left {
            return Err(Refusal::Leaving);
        }
        if self.settings.role == Role::Client {
            return Err(Refusal::NotServing);
        }
        if self.penalties.holds(node, self.now_ms()) {
            return Err(Refusal::TooOften);
        }
        Ok(())
    }

    fn decide_incoming(&self, candidate: &Candidate) -> Result<(), Refusal> {
        let node = candidate.node;
        self.check_door(node)?;
        let preferred_mine = self.me < node;
        if let Some(old) = self.peers.get(&node) {
            let crossed = old.dialled
                && old.instance == candidate.instance
                && old.since.elapsed() < CROSSING_MAX;
            return if crossed && preferred_mine {
                Err(Refusal::Duplicate)
            } else {
                Ok(())
            };
        }
        if preferred_mine && self.dials.get(&node).is_some_and(|dial| dial.shaking) {
            return Err(Refusal::Duplicate);
        }
        if candidate.role == Role::Client {
            let clients = self.peers.values().filter(|peer| peer.role == Role::Client);
            if clients.count() >= self.settings.clients_max {
                return Err(Refusal::ClientsFull);
            }
        }
        if self.peers.len() >= CONNECTIONS_MAX {
            return Err(Refusal::Full("connections"));
        }
        Ok(())
    }

    fn decide_dialled(&self, node: NodeId, serial: u64) -> Result<(), Refusal> {
        if self.left {
            return Err(Refusal::Leaving);
        }
        // Another connection won meanwhile, and took the dial out of the table.
        if self
            .dials
            .get(&node)
            .is_none_or(|dial| dial.serial != serial)
        {
            return Err(Refusal::Duplicate);
        }
        Ok(())
    }

    pub(super) fn closed(&mut self, node: NodeId, serial: u64, ending: &Ending) {
        match ending {
            Ending::Fault(reason) => {
                tracing::warn!(peer = %node.short(), %reason, "cut a peer off");
                let now_ms = self.now_ms();
                self.penalties.add(node, now_ms);
            }
            Ending::Expelled(reason) => {
                tracing::info!(peer = %node.short(), %reason, "cut an expelled member off");
            }
            // No more than its word: the next hello brings the proof, if there is one.
            Ending::Theirs(CloseCode::Expelled) => {
                tracing::warn!(peer = %node.short(), "a member closed the connection: it says that this node was expelled");
            }
            Ending::Theirs(CloseCode::Misbehaved) => {
                tracing::warn!(peer = %node.short(), "a member says that this node broke the protocol");
            }
            Ending::Ours | Ending::Theirs(_) => {
                tracing::debug!(peer = %node.short(), ?ending, "connection closed");
            }
            Ending::Lost(reason) => {
                tracing::info!(peer = %node.short(), %reason, "lost the connection");
            }
        }
        if self
            .peers
            .get(&node)
            .is_some_and(|peer| peer.serial == serial)
        {
            self.peers.remove(&node);
            let clean = ending.is_clean();
            self.event(Event::PeerClosed { node, clean });
        }
    }

    /// Cuts a connection now.
    pub(super) fn cut(&mut self, node: NodeId, code: CloseCode, reason: &str) -> bool {
        let found = self.peers.remove(&node);
        if let Some(peer) = &found {
            code.close(&peer.connection, reason);
            peer.bulk.close(code, reason);
        }
        found.is_some()
    }

    /// Cuts everybody whose membership no longer holds.
    pub(super) fn cut_revoked(&mut self) {
        let now_unix_ms = unix_ms();
        let trust = self.trust.borrow().clone();
        let out: Vec<(NodeId, Refusal)> = self
            .peers
            .iter()
            .filter_map(|(node, peer)| {
                let refusal = trust.check_still(&peer.chain, now_unix_ms).err()?;
                Some((*node, refusal))
            })
            .collect();
        for (node, refusal) in out {
            tracing::info!(peer = %node.short(), reason = %refusal, "cut a member off");
            self.cut(node, CloseCode::Expelled, refusal.code());
            self.event(Event::PeerClosed { node, clean: true });
        }
        let own = trust.check_still(&self.authority.membership.chain, now_unix_ms);
        if let Err(refusal) = own {
            let status = MemberStatus::Expelled(refusal);
            if *self.status.borrow() != status {
                tracing::warn!(?status, "this node is no member any more");
                self.status.send_replace(status);
            }
        }
    }

    pub(super) fn links(&self) -> Vec<Link> {
        self.peers
            .iter()
            .map(|(node, peer)| peer.link(*node))
            .collect()
    }

    /// Remembers where a node is, if there is anything to remember.
    pub(super) fn learn_addresses(&mut self, node: NodeId, addresses: Addresses) {
        let room = self.addresses.len() < crate::proto::MEMBERS_MAX;
        if !addresses.is_empty() && (room || self.addresses.contains_key(&node)) {
            self.addresses.insert(node, addresses);
        }
    }
}

/// The acceptor's side of a connection's beginning: a peer that is let in and has to be served.
async fn begin(incoming: Incoming, context: Context, mut place: Place) -> Option<PeerConnection> {
    let shaking = timeout(HANDSHAKE_MAX, context.bulk.accept(incoming));
    let connection = match place.hold(shaking).await {
        Some(Ok(Ok(connection))) => connection,
        Some(Ok(Err(error))) => {
            tracing::debug!(%error, "a connection did not come to stand");
            return None;
        }
        // It took too long, by itself or because others came.
        Some(Err(_)) | None => return None,
    };
    if connection.alpn() == ALPN_JOIN {
        join::answer(connection, place, context.trust, context.inputs).await;
        return None;
    }
    if connection.alpn() == ALPN_BULK {
        bulk::receive(connection, context, place).await;
        return None;
    }
    receive(connection, context, place).await
}

/// A peer that the actor has taken up.
pub(super) struct LetIn<R> {
    pub(super) node: NodeId,
    pub(super) role: Role,
    pub(super) chain: Arc<[Certificate]>,
    pub(super) registered: R,
    /// The stream on which memberships were shown.
    pub(super) stream: (SendStream, RecvStream),
    /// Whether the peer was told.
    pub(super) welcomed: Result<(), HelloError>,
}

/// Hears who a peer is, asks the actor with `input` whether it may come in, and tells the peer. `None` if it may
/// not, or is gone.
pub(super) async fn let_in<R>(
    connection: &Connection,
    context: &Context,
    mut place: Place,
    input: impl FnOnce(Candidate, oneshot::Sender<Result<R, Refusal>>) -> Input,
) -> Option<LetIn<R>> {
    let (checked, mut send, recv) = hear(connection, context, &mut place).await?;
    let registered = match checked {
        Ok(candidate) => {
            let (role, chain) = (candidate.role, candidate.chain.clone());
            register(context, |reply| input(candidate, reply))
                .await
                .map(|registered| (role, chain, registered))
                .map_err(Rejection::from)
        }
        Err(rejection) => Err(rejection),
    };
    let (role, chain, registered) = match registered {
        Ok(registered) => registered,
        Err(rejection) => {
            turn_away(connection, context, &mut place, &mut send, &rejection).await;
            return None;
        }
    };
    // It is no stranger any more.
    drop(place);
    let welcomed = hello::welcome(connection, &mut send, &context.hello).await;
    Some(LetIn {
        node: address::node_of(connection.remote_id()),
        role,
        chain,
        registered,
        stream: (send, recv),
        welcomed,
    })
}

/// What a peer has shown, and the stream that it did so on; `None` if it is gone or did not say it.
async fn hear(
    connection: &Connection,
    context: &Context,
    place: &mut Place,
) -> Option<(Result<Candidate, Rejection>, SendStream, RecvStream)> {
    let node = address::node_of(connection.remote_id());
    let trust = context.trust.borrow().clone();
    match place.hold(hello::receive(connection, &trust)).await {
        Some(Ok(received)) => Some(received),
        Some(Err(error)) => {
            context.turned_away(node, error.to_string());
            None
        }
        None => {
            CloseCode::Done.close(connection, CROWDED);
            context.turned_away(node, CROWDED.into());
            None
        }
    }
}

/// Says why a peer is not let in.
async fn turn_away(
    connection: &Connection,
    context: &Context,
    place: &mut Place,
    send: &mut SendStream,
    rejection: &Rejection,
) {
    let reason = &rejection.refusal;
    if *reason != Refusal::Duplicate {
        let node = address::node_of(connection.remote_id());
        context.turned_away(node, reason.to_string());
    }
    let refused = hello::refuse(connection, send, rejection);
    if place.hold(refused).await.is_none() {
        CloseCode::Done.close(connection, CROWDED);
    }
}

/// Takes up a peer that opened a connection to this node, if it may come in.
async fn receive(connection: Connection, context: Context, place: Place) -> Option<PeerConnection> {
    let input = |candidate, reply| Input::Register {
        candidate,
        dial: None,
        reply,
    };
    let LetIn {
        node,
        role,
        chain,
        registered,
        stream,
        welcomed,
    } = let_in(&connection, &context, place, input).await?;
    if let Err(error) = welcomed {
        let closed = Input::Closed {
            node,
            serial: registered.serial,
            ending: Ending::Lost(error.to_string()),
        };
        // Fails only when the actor is gone.
        let _ = context.inputs.send(closed).await;
        return None;
    }
    let peer = peer_connection(context, node, role, chain, connection, stream, registered);
    Some(peer)
}

/// Asks the actor to take a checked peer into its table.
pub(super) async fn register<R>(
    context: &Context,
    input: impl FnOnce(oneshot::Sender<Result<R, Refusal>>) -> Input,
) -> Result<R, Refusal> {
    let (reply, answer) = oneshot::channel();
    if context.inputs.send(input(reply)).await.is_err() {
        return Err(Refusal::Leaving);
    }
    answer.await.unwrap_or(Err(Refusal::Leaving))
}

pub(super) fn peer_connection(
    context: Context,
    node: NodeId,
    role: Role,
    chain: Arc<[Certificate]>,
    connection: Connection,
    (send, recv): (SendStream, RecvStream),
    registered: Registered,
) -> PeerConnection {
    PeerConnection {
        node,
        role,
        serial: registered.serial,
        connection,
        chain,
        send,
        recv,
        outbox: registered.outbox,
        inputs: context.inputs,
        streams: context.streams,
        trust: context.trust,
        in_use: registered.in_use,
    }
}
