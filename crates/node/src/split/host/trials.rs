//! How fast machines are with a model before they have run it: a short run on a layer of it, here and on members that
//! could take part.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use futures::future::join_all;
use gguf::Fingerprint;
use mesh::NodeId;
use split::plan::Speed;
use split::station::Station;
use split::wire::Pace;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::super::pool::threads;
use super::super::probe::probe;
use super::super::trial_folder;
use super::making::Subject;
use super::with_all;
use crate::membership::Membership;
use crate::node::Shared;

/// Machines that are asked for such a trial. A ring has fewer. Those without the model's file ask for its headers first,
/// some 20 MiB at most, and make the weights up.
const ASKED_MAX: usize = 16;

/// Trials of members that are under way. Those that nobody waits for any more go on: what they say is noted when it
/// comes, and leads to a move where it makes another plan better.
#[derive(Debug, Default)]
pub(super) struct Trials {
    asked: BTreeMap<NodeId, AbortOnDropHandle<()>>,
    /// The one of this machine, which can't be broken off.
    here: Option<JoinHandle<()>>,
}

/// What a trial needs to be asked for, and noted.
struct Asking<'a> {
    shared: &'a Weak<Shared>,
    membership: &'a Arc<Membership>,
    station: Station,
    model: Fingerprint,
    /// Until then the plan waits.
    deadline: Instant,
}

impl Trials {
    /// Measures this machine and members that could take part, as far as nobody has. Waits for them, for as long as the
    /// settings say at most.
    pub(super) async fn run(
        &mut self,
        shared: &Weak<Shared>,
        subject: &Subject,
        membership: &Arc<Membership>,
    ) {
        let (Some(present), Some(station)) = (shared.upgrade(), membership.station()) else {
            return;
        };
        let Self { asked, here } = self;
        let deadline = Instant::now() + present.settings.mesh.trial_wait_max;
        asked.retain(|_, trial| !trial.is_finished());
        let unmeasured = with_all(&present, subject, membership, |scene| scene.unmeasured());
        let nodes = unmeasured.into_iter().take(ASKED_MAX);
        let nodes: Vec<NodeId> = nodes.filter(|node| !asked.contains_key(node)).collect();
        let asking = Asking {
            shared,
            membership,
            station,
            model: subject.fingerprint,
            deadline,
        };
        let me = membership.mesh().node_id();
        tokio::join!(
            ask(asked, &nodes, &asking),
            measure_here(here, &present, subject, me, deadline)
        );
    }
}

/// Asks machines, all at once, and adds them to those that are `asked`.
async fn ask(
    asked: &mut BTreeMap<NodeId, AbortOnDropHandle<()>>,
    nodes: &[NodeId],
    asking: &Asking<'_>,
) {
    for node in nodes {
        let trial = trial(
            asking.shared.clone(),
            Arc::downgrade(asking.membership),
            asking.station.clone(),
            *node,
            asking.model,
        );
        asked.insert(*node, AbortOnDropHandle::new(tokio::spawn(trial)));
    }
    let asked = asked.iter_mut().filter(|(node, _)| nodes.contains(node));
    let answers = join_all(asked.map(|(_, trial)| trial));
    // Who takes longer is guessed for now.
    let _ = timeout_at(asking.deadline, answers).await;
}

/// Asks one machine and notes what it says, unless the ring has told more meanwhile.
async fn trial(
    shared: Weak<Shared>,
    membership: Weak<Membership>,
    station: Station,
    node: NodeId,
    model: Fingerprint,
) {
    let pace = station.pace_of(node, model).await;
    let Some((pace, speed)) = pace.and_then(|pace| Some((pace, speed_of(pace)?))) else {
        return;
    };
    let (Some(shared), Some(membership)) = (shared.upgrade(), membership.upgrade()) else {
        return;
    };
    let view = membership.view();
    let member = view.member(node);
    let threads = threads(member.and_then(|member| member.announcement().info.compute));
    let name = model.to_string();
    if shared.speeds.of_model(&name, node, threads).is_some() {
        return;
    }
    tracing::info!(
        node = node.short(),
        ?pace,
        "a machine was measured with a layer"
    );
    shared.speeds.note_model(&name, node, threads, speed);
    // What can't be written is measured again.
    let _ = tokio::task::spawn_blocking(move || shared.speeds.save()).await;
}

/// Measures this machine, once at a time, and waits for it until the deadline.
async fn measure_here(
    here: &mut Option<JoinHandle<()>>,
    shared: &Arc<Shared>,
    subject: &Subject,
    me: NodeId,
    deadline: Instant,
) {
    let fingerprint = subject.fingerprint.to_string();
    let threads = threads(shared.compute.get().copied());
    if shared.speeds.of_model(&fingerprint, me, threads).is_some() {
        return;
    }
    let is_running = here.as_ref().is_some_and(|task| !task.is_finished());
    if !is_running {
        *here = Some(start_here(shared, subject, fingerprint, me, threads));
    }
    if let Some(task) = here {
        // A trial that fails, or takes longer, leaves a guess.
        let _ = timeout_at(deadline, task).await;
    }
}

/// Runs a layer here, on a thread of its own.
fn start_here(
    shared: &Arc<Shared>,
    subject: &Subject,
    fingerprint: String,
    me: NodeId,
    threads: u32,
) -> JoinHandle<()> {
    let (shared, path) = (Arc::clone(shared), subject.path.clone());
    tokio::task::spawn_blocking(move || {
        let folder = trial_folder(&shared.settings);
        let bytes = shared.models.free_bytes(shared.settings.memory_bytes_max);
        match probe(&path, &shared.settings, &folder, bytes) {
            Ok(speed) => shared.speeds.note_model(&fingerprint, me, threads, speed),
            Err(reason) => tracing::debug!(reason, "this machine can't be measured"),
        }
    })
}

/// What a machine says of itself, if it can be.
fn speed_of(pace: Pace) -> Option<Speed> {
    #[expect(clippy::cast_precision_loss, reason = "three digits are plenty")]
    let of = |bytes_per_s: u64| 1.0 / bytes_per_s as f64;
    let speed = Speed::from_times(1, of(pace.decode_bytes_per_s), of(pace.prefill_bytes_per_s));
    speed.ok()
}
