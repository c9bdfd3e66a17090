//! Owns connections that this node is opening, and who waits for them.

use iroh::{Endpoint, EndpointAddr};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::{Duration, timeout};

use super::super::close::CloseCode;
use super::super::hello::{self, HelloError};
use super::super::peer::{PeerConnection, serve};
use super::super::wire::Rejection;
use super::super::{ALPN_PEER, address};
use super::connections::{Context, peer_connection, register};
use super::{Actor, Event, Input, MeshError, OpenPeer, Refusal};
use crate::announcement::addresses;
use crate::proto::DIAL_MS_MAX;
use crate::{Addresses, NodeId};

/// Most dials that are under way when the application has one begun. `proto` bounds its own, which count too.
pub(crate) const DIALS_MAX: usize = 64;

/// Most streams that wait for one dial.
pub(super) const WAITERS_MAX: usize = 256;

/// How long a dial that lost against the other side's waits for that one, in milliseconds.
const THEIRS_MS_MAX: u64 = 3_000;

/// A connection that is being opened.
pub(super) struct Dial {
    pub(super) serial: u64,
    /// The connection stands and the hello is under way.
    pub(super) shaking: bool,
    /// The other side's dial won; until when it is waited for.
    pub(super) theirs_until_ms: Option<u64>,
    task: AbortHandle,
    waiters: Vec<oneshot::Sender<Result<OpenPeer, MeshError>>>,
}

impl Dial {
    /// Gives up.
    pub(super) fn abort(self, error: &MeshError) {
        self.task.abort();
        for waiter in self.waiters {
            // Fails only if nobody waits any more.
            let _ = waiter.send(Err(copy(error)));
        }
    }
}

/// The same error for each who waits for a dial.
pub(super) fn copy(error: &MeshError) -> MeshError {
    match error {
        MeshError::Refused(refusal) => MeshError::Refused(refusal.clone()),
        MeshError::Peer { node, reason } => MeshError::Peer {
            node: *node,
            reason: reason.clone(),
        },
        _ => MeshError::Stopped,
    }
}

/// What a failed dial is to the application.
pub(super) fn dial_error(node: NodeId, error: HelloError) -> MeshError {
    match error {
        HelloError::RefusedByPeer(rejection) => MeshError::Refused(rejection.refusal),
        error => MeshError::Peer {
            node,
            reason: error.to_string(),
        },
    }
}

impl Actor {
    /// Dials for `proto`.
    pub(super) fn connect(&mut self, node: NodeId, announced: &[Vec<u8>]) {
        if self.peers.contains_key(&node) || self.dials.contains_key(&node) {
            return;
        }
        let announced = addresses::from_announcement(announced);
        self.start_dial(node, &announced);
    }

    /// A connection for the application, at once or after a dial.
    pub(super) fn open(
        &mut self,
        node: NodeId,
        reply: oneshot::Sender<Result<OpenPeer, MeshError>>,
    ) {
        let answer = if let Some(peer) = self.peers.get(&node) {
            Ok(OpenPeer {
                connection: peer.connection.clone(),
                in_use: peer.in_use.clone(),
            })
        } else if node == self.me {
            Err(MeshError::Peer {
                node,
                reason: "it is this node".into(),
            })
        } else {
            if !self.dials.contains_key(&node) {
                if self.dials.len() >= DIALS_MAX {
                    let _ = reply.send(Err(MeshError::TooMany("dials")));
                    return;
                }
                let announced = self.announced_addresses(node);
                self.start_dial(node, &announced);
            }
            match self.dials.get_mut(&node) {
                Some(dial) if dial.waiters.len() < WAITERS_MAX => {
                    dial.waiters.push(reply);
                    return;
                }
                _ => Err(MeshError::TooMany("streams that wait for one node")),
            }
        };
        // Fails only if nobody waits any more.
        let _ = reply.send(answer);
    }

    pub(super) fn announced_addresses(&self, node: NodeId) -> Addresses {
        self.view
            .borrow()
            .member(node)
            .map(|member| addresses::from_announcement(&member.announcement().info.addresses))
            .unwrap_or_default()
    }

    /// What to dial, by what was announced and what is noted here; `None` for a node whose id is no key.
    pub(super) fn target(&self, node: NodeId, announced: &Addresses) -> Option<EndpointAddr> {
        let noted = self.addresses.get(&node).cloned().unwrap_or_default();
        let direct = announced.direct().iter().chain(noted.direct()).copied();
        let relay = announced.relay().or(noted.relay()).map(String::from);
        address::endpoint_addr(node, &Addresses::new(direct, relay))
    }

    fn start_dial(&mut self, node: NodeId, announced: &Addresses) {
        let Some(target) = self.target(node, announced) else {
            self.events.push_back(Event::DialFailed { node });
            return;
        };
        self.next_serial += 1;
        let serial = self.next_serial;
        let task = dial_and_serve(self.endpoint.clone(), target, node, serial, self.context());
        let task = self.tasks.spawn(task);
        self.dials.insert(
            node,
            Dial {
                serial,
                shaking: false,
                theirs_until_ms: None,
                task,
                waiters: Vec::new(),
            },
        );
    }

    /// A dial has a connection: whether it may go on.
    pub(super) fn shake(&mut self, node: NodeId, serial: u64) -> bool {
        match self.dials.get_mut(&node) {
            Some(dial) if dial.serial == serial => {
                dial.shaking = true;
                true
            }
            _ => false,
        }
    }

    pub(super) fn dial_ended(&mut self, node: NodeId, serial: u64, error: HelloError) {
        let now_ms = self.now_ms();
        let Some(dial) = self
            .dials
            .get_mut(&node)
            .filter(|dial| dial.serial == serial)
        else {
            return;
        };
        let crossed = |rejection: &Rejection| rejection.refusal == Refusal::Duplicate;
        if matches!(&error, HelloError::RefusedByPeer(rejection) if crossed(rejection)) {
            dial.shaking = false;
            dial.theirs_until_ms = Some(now_ms + THEIRS_MS_MAX);
            return;
        }
        tracing::debug!(peer = %node.short(), %error, "a dial failed");
        if let HelloError::RefusedByPeer(rejection) = &error {
            self.note_refused(node, rejection);
        }
        self.fail_dial(node, &dial_error(node, error));
    }

    /// Gives up dials that lost against one of the other side which then did not come.
    pub(super) fn fail_waiting_dials(&mut self) {
        let now_ms = self.now_ms();
        let late: Vec<_> = self
            .dials
            .iter()
            .filter(|(_, dial)| dial.theirs_until_ms.is_some_and(|until| until <= now_ms))
            .map(|(node, _)| *node)
            .collect();
        for node in late {
            let reason = "its own connection did not come".into();
            self.fail_dial(node, &MeshError::Peer { node, reason });
        }
    }

    fn fail_dial(&mut self, node: NodeId, error: &MeshError) {
        if let Some(dial) = self.dials.remove(&node) {
            dial.abort(error);
            self.event(Event::DialFailed { node });
        }
    }

    /// There is a connection now, whoever opened it: who waited for a dial gets it.
    pub(super) fn settle_dial(&mut self, node: NodeId) {
        let (Some(dial), Some(peer)) = (self.dials.remove(&node), self.peers.get(&node)) else {
            return;
        };
        if !peer.dialled {
            dial.task.abort();
        }
        for waiter in dial.waiters {
            // Fails only if nobody waits any more.
            let _ = waiter.send(Ok(OpenPeer {
                connection: peer.connection.clone(),
                in_use: peer.in_use.clone(),
            }));
        }
    }
}

async fn dial_and_serve(
    endpoint: Endpoint,
    target: EndpointAddr,
    node: NodeId,
    serial: u64,
    context: Context,
) {
    let inputs = context.inputs.clone();
    let deadline = Duration::from_millis(DIAL_MS_MAX);
    let dialled = timeout(deadline, dial(&endpoint, target, node, serial, context))
        .await
        .unwrap_or_else(|_| Err(HelloError::Network("no answer".into())));
    match dialled {
        Ok(Some(peer)) => serve(peer).await,
        // Another connection won.
        Ok(None) => {}
        Err(error) => {
            let ended = Input::DialEnded {
                node,
                dial: serial,
                error,
            };
            // Fails only when the actor is gone.
            let _ = inputs.send(ended).await;
        }
    }
}

async fn dial(
    endpoint: &Endpoint,
    target: EndpointAddr,
    node: NodeId,
    serial: u64,
    context: Context,
) -> Result<Option<PeerConnection>, HelloError> {
    let connection = endpoint
        .connect(target, ALPN_PEER)
        .await
        .map_err(|error| HelloError::Network(error.to_string()))?;
    let (go, answer) = oneshot::channel();
    let shaking = Input::Shaking {
        node,
        dial: serial,
        go,
    };
    if context.inputs.send(shaking).await.is_err() || !answer.await.unwrap_or(false) {
        CloseCode::Replaced.close(&connection, "another connection came first");
        return Ok(None);
    }
    let trust = context.trust.borrow().clone();
    let (candidate, send, recv) = hello::dial(&connection, &context.hello, &trust).await?;
    let (role, chain) = (candidate.role, candidate.chain.clone());
    let input = |reply| Input::Register {
        candidate,
        dial: Some(serial),
        reply,
    };
    match register(&context, input).await {
        Ok(registered) => Ok(Some(peer_connection(
            context,
            node,
            role,
            chain,
            connection,
            (send, recv),
            registered,
        ))),
        Err(_) => {
            CloseCode::Replaced.close(&connection, "another connection came first");
            Ok(None)
        }
    }
}
