//! How far machines are from each other, where the mesh does not say it: a host asks some of them, and they measure.
//!
//! Only neighbours announce round trips to each other, and in a large mesh most pairs of members are none. A member that
//! is asked exchanges some bytes with each member that it is asked about, over the connection that the mesh opens for
//! that, and tells the round trips of these connections. A question about nobody is such an exchange.

mod table;
#[cfg(test)]
mod tests;

pub(super) use self::table::is_plausible;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::future::join_all;
use mesh::net::{IncomingStream, StreamKind};
use mesh::proto::View;
use mesh::{Mesh, NodeId, Role};
use tokio::time::{sleep, timeout};

use self::table::Table;
use super::CODE_BROKEN;
use crate::peer::Calls;
use crate::wire::trips::{TRIPS_BYTES_MAX, ask_bytes, read_ask, read_trips, trips_bytes};
use crate::wire::{read_frame, write_frames};

/// Streams with a question about round trips, one each. Other kinds belong to other protocols.
pub(super) const DISTANCES: StreamKind = StreamKind(5);

/// How long a plan waits for answers: dials and exchanges on both sides, on ways that a ring could use.
const ASK_MAX: Duration = Duration::from_secs(2);

/// How long a member that is asked tries to reach others. It answers before whoever asks has given up.
const MEASURE_MAX: Duration = Duration::from_millis(1_200);

/// Exchanges with a member before the round trip counts: that of the handshake has its signatures in it.
const EXCHANGES: usize = 3;

/// How long a question may take to arrive, and an answer to be read: both have some hundred bytes.
const READ_MAX: Duration = Duration::from_secs(2);

/// Members for whom this node measures at a time, one question each: eight dials for a question, and the mesh has
/// 64 under way at most.
const MEASURING_MAX: usize = 6;

/// How long a member waits for the next question that leads to dials. One plan asks once.
const REST: Duration = Duration::from_secs(1);

/// Longest waits.
#[derive(Debug, Clone, Copy)]
struct Waits {
    ask: Duration,
    measure: Duration,
}

/// Asks, answers, and remembers what was said, in one mesh. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Distances {
    shared: Arc<Shared>,
}

struct Shared {
    mesh: Mesh,
    calls: Arc<Calls>,
    waits: Waits,
    /// The table counts from here.
    began: Instant,
    table: Mutex<Table>,
    /// For whom this node measures.
    measuring: Mutex<BTreeSet<NodeId>>,
}

/// A place among those for whom this node measures.
struct Measuring<'a> {
    shared: &'a Shared,
    peer: NodeId,
}

impl Drop for Measuring<'_> {
    fn drop(&mut self) {
        lock(&self.shared.measuring).remove(&self.peer);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Distances {
    /// Nothing is known yet. Questions of peers count as `calls`.
    pub(super) fn new(mesh: Mesh, calls: Arc<Calls>) -> Self {
        let waits = Waits {
            ask: ASK_MAX,
            measure: MEASURE_MAX,
        };
        Self::with(mesh, calls, waits)
    }

    fn with(mesh: Mesh, calls: Arc<Calls>, waits: Waits) -> Self {
        Self {
            shared: Arc::new(Shared {
                mesh,
                calls,
                waits,
                began: Instant::now(),
                table: Mutex::default(),
                measuring: Mutex::default(),
            }),
        }
    }

    /// How far `to` is from `from`, microseconds, as that one said when it was asked some minutes ago at most.
    pub(super) fn us(&self, from: NodeId, to: NodeId) -> Option<u32> {
        let shared = &self.shared;
        lock(&shared.table).us(from, to, shared.began.elapsed())
    }

    /// Has the round trips of these pairs of members measured, this node perhaps among them, as far as that was not
    /// done lately. Takes two seconds at most; what is not known by then stays unknown.
    pub(super) async fn ask(&self, pairs: &[(NodeId, NodeId)]) {
        let shared = &self.shared;
        let questions = shared.questions(pairs);
        let asked = questions
            .iter()
            .map(|(node, about)| shared.ask_one(*node, about));
        // What was said before the time is over is noted already.
        if timeout(shared.waits.ask, join_all(asked)).await.is_err() {
            tracing::debug!("not every machine has said in time how far others are");
        }
    }

    /// Takes a stream with a question of a member, until it is answered.
    pub(super) async fn answer(&self, mut stream: IncomingStream) {
        let peer = stream.peer;
        // A client hosts nothing, so that it has no use for an answer.
        let running = match stream.role {
            Role::Serve => self.shared.calls.begin(peer),
            Role::Client => None,
        };
        let replied = match &running {
            Some(_) => self.shared.reply(&mut stream).await,
            None => Err("it may not ask, or asks too much at once".to_owned()),
        };
        drop(running);
        match replied {
            Ok(None) => {}
            Ok(Some(_measuring)) => {
                drop(stream);
                sleep(REST).await;
            }
            Err(reason) => {
                tracing::debug!(peer = peer.short(), reason, "no answer how far others are");
                stream.recv.abort(CODE_BROKEN);
                stream.send.abort(CODE_BROKEN);
            }
        }
    }
}

impl Shared {
    /// What is to be asked, noted as asked.
    fn questions(&self, pairs: &[(NodeId, NodeId)]) -> BTreeMap<NodeId, Vec<NodeId>> {
        let (me, now) = (self.mesh.node_id(), self.began.elapsed());
        let mut table = lock(&self.table);
        let questions = table.questions(me, pairs, now);
        for (node, about) in &questions {
            table.asked(me, *node, now);
            for to in about {
                table.asked(*node, *to, now);
            }
        }
        questions
    }

    async fn ask_one(&self, node: NodeId, about: &[NodeId]) {
        let Some(trips) = exchange(&self.mesh, node, about).await else {
            return;
        };
        let from_here = measured(&self.mesh, &[node]).await;
        let (me, now) = (self.mesh.node_id(), self.began.elapsed());
        let mut table = lock(&self.table);
        for (to, us) in from_here {
            table.answered(me, to, us, now);
        }
        for (to, us) in trips.into_iter().filter(|(to, _)| about.contains(to)) {
            tracing::debug!(
                from = node.short(),
                to = to.short(),
                us,
                "a machine said how far another is"
            );
            table.answered(node, to, us, now);
        }
    }

    /// Answers a question. Whoever had something measured for it holds its place for a while.
    async fn reply(&self, stream: &mut IncomingStream) -> Result<Option<Measuring<'_>>, String> {
        let frame = timeout(READ_MAX, read_frame(&mut stream.recv, TRIPS_BYTES_MAX)).await;
        let frame = frame.map_err(|_| "the question does not arrive")?;
        let frame = frame.map_err(|error| error.to_string())?;
        let frame = frame.ok_or("it asks nothing")?;
        let nodes = read_ask(&frame).map_err(|error| error.to_string())?;
        let view = self.mesh.view().borrow().clone();
        let nodes = members(&view, nodes);
        let measuring = match nodes.is_empty() {
            true => None,
            false => self.begin(stream.peer),
        };
        let trips = match &measuring {
            Some(_) => self.measure(&nodes).await,
            None => Vec::new(),
        };
        let answer = [trips_bytes(&trips)];
        let written = timeout(READ_MAX, write_frames(&mut stream.send, &answer)).await;
        let written = written.map_err(|_| "it does not read")?;
        written.map_err(|error| error.to_string())?;
        // Fails only on a stream that the peer has ended.
        let _ = stream.send.finish();
        Ok(measuring)
    }

    /// `None`: too many have something measured, or this one has.
    fn begin(&self, peer: NodeId) -> Option<Measuring<'_>> {
        let mut measuring = lock(&self.measuring);
        if measuring.len() >= MEASURING_MAX || !measuring.insert(peer) {
            return None;
        }
        Some(Measuring { shared: self, peer })
    }

    /// The round trips to those members that can be reached in time.
    async fn measure(&self, nodes: &[NodeId]) -> Vec<(NodeId, u32)> {
        let reached = nodes.iter().map(|node| async move {
            let reached = timeout(self.waits.measure, reach(&self.mesh, *node)).await;
            reached.is_ok_and(|reached| reached).then_some(*node)
        });
        let reached = join_all(reached).await;
        let reached: Vec<NodeId> = reached.into_iter().flatten().collect();
        measured(&self.mesh, &reached).await
    }
}

/// Those of the nodes that are other members and compute, each once.
fn members(view: &View, nodes: Vec<NodeId>) -> Vec<NodeId> {
    let nodes: BTreeSet<NodeId> = nodes.into_iter().collect();
    let computes = |node: &NodeId| {
        let member = view.member(*node);
        member.is_some_and(|member| member.is_alive() && member.role() == Role::Serve)
    };
    let others = nodes.into_iter().filter(|node| *node != view.me);
    others.filter(computes).collect()
}

/// Whether packets go to a member and back.
async fn reach(mesh: &Mesh, node: NodeId) -> bool {
    for _ in 0..EXCHANGES {
        if exchange(mesh, node, &[]).await.is_none() {
            return false;
        }
    }
    true
}

/// Asks a member how far others are from it. `None`: it can't be reached. One that does not understand the question
/// says nothing; packets have gone both ways all the same. Has no end of its own.
async fn exchange(mesh: &Mesh, node: NodeId, about: &[NodeId]) -> Option<Vec<(NodeId, u32)>> {
    let (mut send, mut recv) = mesh.open(node, DISTANCES).await.ok()?;
    let asked = async {
        let question = [ask_bytes(about)];
        write_frames(&mut send, &question).await.ok()?;
        // Fails only on a stream that the peer has ended.
        let _ = send.finish();
        let answer = read_frame(&mut recv, TRIPS_BYTES_MAX).await.ok()??;
        read_trips(&answer).ok()
    };
    Some(asked.await.unwrap_or_default())
}

/// Round trips of the open connections to these members, microseconds.
async fn measured(mesh: &Mesh, nodes: &[NodeId]) -> Vec<(NodeId, u32)> {
    // A mesh that was left has none.
    let links = mesh.links().await.unwrap_or_default();
    let links = links.iter().filter(|link| nodes.contains(&link.node));
    let trips = links.map(|link| {
        let us = u32::try_from(link.round_trip.as_micros());
        (link.node, us.unwrap_or(u32::MAX))
    });
    trips.filter(|(_, us)| is_plausible(*us)).collect()
}
