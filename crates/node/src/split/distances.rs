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

use futures::future::{BoxFuture, join_all};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use mesh::net::{IncomingStream, RecvStream, SendStream, StreamKind};
use mesh::proto::{self, View};
use mesh::{Mesh, NodeId, Role};
use tokio::time::{sleep, timeout, timeout_at};

use self::table::Table;
use super::CODE_BROKEN;
use crate::peer::Calls;
use crate::wire::trips::{
    TRIPS_BYTES_MAX, TRIPS_MAX, ask_bytes, read_ask, read_trips, trips_bytes,
};
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

/// Members for whom this node measures at a time, one question each. Whoever asks keeps its place until the last dial
/// for it is over, in which eight seconds pass where nobody answers.
const MEASURING_MAX: usize = 4;

/// Most dials that other members can have this node make at a time, and the mesh by itself.
const DIALS_MAX: usize = MEASURING_MAX * TRIPS_MAX + proto::DIALS_MAX;

// A quarter of all is left for requests and for this node's own questions.
const _: () = assert!(DIALS_MAX <= Mesh::DIALS_MAX - Mesh::DIALS_MAX / 4);

/// How long a member waits at least for the next question that leads to dials. One plan asks once.
const REST: Duration = Duration::from_secs(1);

/// Longest waits.
#[derive(Debug, Clone, Copy)]
struct Waits {
    ask: Duration,
    measure: Duration,
    rest: Duration,
}

/// Asks, answers, and remembers what was said, in one mesh. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Distances {
    surveyor: Arc<Surveyor>,
}

struct Surveyor {
    mesh: Mesh,
    calls: Arc<Calls>,
    waits: Waits,
    /// The table counts from here.
    began: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What others said.
    table: Table,
    /// For whom this node measures.
    measuring: BTreeSet<NodeId>,
}

/// A place among those for whom this node measures.
struct Place<'a> {
    surveyor: &'a Surveyor,
    peer: NodeId,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.surveyor.state().measuring.remove(&self.peer);
    }
}

/// Attempts to reach members, each with whether it succeeded in time. One that is dropped leaves its dial behind.
type Attempts<'a> = FuturesUnordered<BoxFuture<'a, (NodeId, bool)>>;

/// What a question leaves behind that led to dials.
struct Rest<'a> {
    attempts: Attempts<'a>,
    place: Place<'a>,
}

impl Rest<'_> {
    /// Holds the place until the last dial is over, and for a while.
    async fn run(self) {
        let Self {
            mut attempts,
            place,
        } = self;
        let dials = async { while attempts.next().await.is_some() {} };
        tokio::join!(dials, sleep(place.surveyor.waits.rest));
    }
}

impl Distances {
    /// Nothing is known yet. Questions of peers count as `calls`.
    pub(super) fn new(mesh: Mesh, calls: Arc<Calls>) -> Self {
        let waits = Waits {
            ask: ASK_MAX,
            measure: MEASURE_MAX,
            rest: REST,
        };
        Self::with(mesh, calls, waits)
    }

    fn with(mesh: Mesh, calls: Arc<Calls>, waits: Waits) -> Self {
        Self {
            surveyor: Arc::new(Surveyor {
                mesh,
                calls,
                waits,
                began: Instant::now(),
                state: Mutex::default(),
            }),
        }
    }

    /// How far `to` is from `from`, microseconds, as that one said when it was asked some minutes ago at most.
    pub(super) fn us(&self, from: NodeId, to: NodeId) -> Option<u32> {
        let now = self.surveyor.began.elapsed();
        self.surveyor.state().table.us(from, to, now)
    }

    /// Has the round trips of these pairs of members measured, this node perhaps among them, as far as that was not
    /// done lately. Takes two seconds at most; what is not known by then stays unknown.
    pub(super) async fn ask(&self, pairs: &[(NodeId, NodeId)]) {
        let surveyor = &self.surveyor;
        let questions = surveyor.questions(pairs);
        let asked = questions
            .iter()
            .map(|(node, about)| surveyor.ask_one(*node, about));
        // What was said before the time is over is noted already.
        if timeout(surveyor.waits.ask, join_all(asked)).await.is_err() {
            tracing::debug!("not every machine has said in time how far others are");
        }
    }

    /// Takes a stream with a question of a member, until it is answered and no dial for it is under way.
    pub(super) async fn answer(&self, mut stream: IncomingStream) {
        let peer = stream.peer;
        // A client hosts nothing, so that it has no use for an answer.
        let running = match stream.role {
            Role::Serve => self.surveyor.calls.begin(peer),
            Role::Client => None,
        };
        let replied = match &running {
            Some(_) => self.surveyor.reply(&mut stream).await,
            None => Err("it may not ask, or asks too much at once".to_owned()),
        };
        drop(running);
        match replied {
            Ok(None) => {}
            Ok(Some(rest)) => {
                drop(stream);
                rest.run().await;
            }
            Err(reason) => {
                tracing::debug!(peer = peer.short(), reason, "no answer how far others are");
                stream.recv.abort(CODE_BROKEN);
                stream.send.abort(CODE_BROKEN);
            }
        }
    }
}

impl Surveyor {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to be asked, noted as asked.
    fn questions(&self, pairs: &[(NodeId, NodeId)]) -> BTreeMap<NodeId, Vec<NodeId>> {
        let (me, now) = (self.mesh.node_id(), self.began.elapsed());
        let mut state = self.state();
        let table = &mut state.table;
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
        let mut state = self.state();
        let table = &mut state.table;
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

    /// Answers a question. What was begun for it has to be run to its end.
    async fn reply(&self, stream: &mut IncomingStream) -> Result<Option<Rest<'_>>, String> {
        let frame = timeout(READ_MAX, read_frame(&mut stream.recv, TRIPS_BYTES_MAX)).await;
        let frame = frame.map_err(|_| "the question does not arrive")?;
        let frame = frame.map_err(|error| error.to_string())?;
        let frame = frame.ok_or("it asks nothing")?;
        let nodes = read_ask(&frame).map_err(|error| error.to_string())?;
        let view = self.mesh.view().borrow().clone();
        let nodes = members(&view, nodes);
        let place = match nodes.is_empty() {
            true => None,
            false => self.enter(stream.peer),
        };
        let Some(place) = place else {
            tell(stream, &[]).await?;
            return Ok(None);
        };
        let mut rest = Rest {
            attempts: self.attempts(nodes),
            place,
        };
        let trips = self.measure(&mut rest.attempts).await;
        // Its dials go on all the same.
        if let Err(reason) = tell(stream, &trips).await {
            let peer = stream.peer.short();
            tracing::debug!(peer, reason, "an answer how far others are was not taken");
            stream.send.abort(CODE_BROKEN);
        }
        Ok(Some(rest))
    }

    /// `None`: too many have something measured, or this one has.
    fn enter(&self, peer: NodeId) -> Option<Place<'_>> {
        let mut state = self.state();
        let measuring = &mut state.measuring;
        if measuring.len() >= MEASURING_MAX || !measuring.insert(peer) {
            return None;
        }
        Some(Place {
            surveyor: self,
            peer,
        })
    }

    fn attempts(&self, nodes: Vec<NodeId>) -> Attempts<'_> {
        let until = tokio::time::Instant::now() + self.waits.measure;
        let mesh = &self.mesh;
        let attempt = |node| async move { (node, reach(mesh, node, until).await) }.boxed();
        nodes.into_iter().map(attempt).collect()
    }

    /// The round trips to those members that can be reached in time.
    async fn measure(&self, attempts: &mut Attempts<'_>) -> Vec<(NodeId, u32)> {
        let mut reached = Vec::new();
        let reaching = async {
            while let Some((node, is_reached)) = attempts.next().await {
                reached.extend(is_reached.then_some(node));
            }
        };
        // Those that take longer go on.
        let _ = timeout(self.waits.measure, reaching).await;
        measured(&self.mesh, &reached).await
    }
}

/// Answers a question.
async fn tell(stream: &mut IncomingStream, trips: &[(NodeId, u32)]) -> Result<(), String> {
    let answer = [trips_bytes(trips)];
    let written = timeout(READ_MAX, write_frames(&mut stream.send, &answer)).await;
    let written = written.map_err(|_| "it does not read")?;
    written.map_err(|error| error.to_string())?;
    // Fails only on a stream that the peer has ended.
    let _ = stream.send.finish();
    Ok(())
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

/// Whether packets go to a member and back before `until`. Ends no sooner than a dial for it.
async fn reach(mesh: &Mesh, node: NodeId, until: tokio::time::Instant) -> bool {
    for _ in 0..EXCHANGES {
        let Ok(stream) = mesh.open(node, DISTANCES).await else {
            return false;
        };
        if timeout_at(until, asked(stream, &[])).await.is_err() {
            return false;
        }
    }
    true
}

/// Asks a member how far others are from it. `None`: it can't be reached. Has no end of its own.
async fn exchange(mesh: &Mesh, node: NodeId, about: &[NodeId]) -> Option<Vec<(NodeId, u32)>> {
    let stream = mesh.open(node, DISTANCES).await.ok()?;
    Some(asked(stream, about).await)
}

/// The answer to a question. A member that does not understand it says nothing; packets have gone both ways all the
/// same.
async fn asked(
    (mut send, mut recv): (SendStream, RecvStream),
    about: &[NodeId],
) -> Vec<(NodeId, u32)> {
    let answer = async {
        let question = [ask_bytes(about)];
        write_frames(&mut send, &question).await.ok()?;
        // Fails only on a stream that the peer has ended.
        let _ = send.finish();
        let answer = read_frame(&mut recv, TRIPS_BYTES_MAX).await.ok()??;
        read_trips(&answer).ok()
    };
    answer.await.unwrap_or_default()
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
