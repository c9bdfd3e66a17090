//! One model over several machines, with this node as its host: plans, brings up the last part here and
//! the ring to the others, and does what [`Recovery`] says when a machine is lost.

mod fetching;
mod making;
mod outlook;
mod pacing;
mod refusals;
mod ring;
mod rooms;
mod stand_in;
mod trials;
mod whole;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use mesh::NodeId;
use split::station::Station;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use self::making::{HostPart, Made, Subject, make};
use self::refusals::Offers;
use self::ring::RingKeeper;
use self::trials::Trials;
use self::whole::{Acquainted, KNOWN_AFTER, Shunned, Whole};
use super::pool::{Own, Scene};
use crate::loader::Plan;
use crate::membership::Membership;
use crate::node::Shared;

/// What to do about a model that fits on nobody.
const ADD_A_MACHINE: &str =
    "hint: run `mesh-llm --join TICKET` on another machine; `mesh-llm invite` makes a ticket";

/// Pause between two looks whether the model can be split by now.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// The same where something has changed in the mesh: a plan takes some milliseconds.
const LOOK_SOONEST: Duration = Duration::from_millis(500);

/// How long machines may take to say how fast their memory is, before the first plan.
const TOLD_MAX: Duration = Duration::from_secs(4);

/// How long it may take to connect with machines and to find out how far they are, before the first plan.
const LINKED_MAX: Duration = Duration::from_secs(1);

/// Pause between two looks at what they say.
const KNOW_PAUSE: Duration = Duration::from_millis(100);

/// Keeps the model of table entry `id` until it is dropped or the node is gone.
pub(crate) async fn keep(shared: Weak<Shared>, id: u64, plan: Plan, forced: bool) {
    let mut made: Option<Made> = None;
    let subject = match Subject::read(&plan).await {
        Ok(subject) => subject,
        Err(error) => {
            if let Some(shared) = shared.upgrade() {
                shared.models.split_failed(id, error);
            }
            return;
        }
    };
    let note = |host_bytes: u64| {
        if let Some(shared) = shared.upgrade() {
            shared
                .models
                .split_is(id, subject.facts(forced, host_bytes));
        }
    };
    note(0);
    let mut shunned = Shunned::default();
    let mut offers = Offers::default();
    let mut acquainted = Acquainted::default();
    let mut trials = Trials::default();
    while let Some((membership, station)) = mesh(&shared, id).await {
        if !is_host(&shared, id) {
            // Another one is, or it is not decided yet.
            if let Some(made) = made.take() {
                end(made).await;
            }
            turn(&shared, id).await;
            continue;
        }
        if made.is_none() {
            station.free_parked(subject.fingerprint).await;
            let mut whole = Whole {
                shared: &shared,
                id,
                subject: &subject,
                plan: &plan,
                forced,
                membership: &membership,
                shunned: &mut shunned,
                offers: &mut offers,
                acquainted: &mut acquainted,
            };
            if whole.run().await {
                continue;
            }
            made = first(&mut whole, &mut trials).await;
        }
        let Some(made) = &mut made else {
            // Why is in the table; the mesh may be another by now.
            sleep(LOOK_SOONEST).await;
            membership.look_again(LOOK_AGAIN - LOOK_SOONEST).await;
            continue;
        };
        note(made.host_bytes);
        let keeper = RingKeeper {
            shared: shared.clone(),
            id,
            subject: &subject,
            made,
            membership,
            station,
        };
        keeper.run().await;
    }
    if let Some(made) = made {
        end(made).await;
    }
}

/// The present mesh with this node's part in its rings; waits for one. `None`: nobody wants the model
/// any more.
async fn mesh(shared: &Weak<Shared>, id: u64) -> Option<(Arc<Membership>, Station)> {
    loop {
        let present = shared.upgrade()?;
        if !present.models.is_split(id) {
            return None;
        }
        let mut memberships = present.membership.subscribe();
        let membership = memberships.borrow_and_update().clone();
        if let Some(membership) = membership
            && let Some(station) = membership.station()
        {
            return Some((membership, station));
        }
        if present.models.table().shutting_down {
            return None;
        }
        present
            .models
            .split_waits(id, "this node is in no mesh".to_owned());
        drop(present);
        // Looks again now and then: the model may be dropped meanwhile.
        tokio::select! {
            _ = memberships.changed() => {}
            () = sleep(LOOK_AGAIN) => {}
        }
    }
}

/// Whether `succession` has made this node the host of the model.
fn is_host(shared: &Weak<Shared>, id: u64) -> bool {
    let shared = shared.upgrade();
    shared.is_some_and(|shared| shared.models.split_term(id).is_some())
}

/// Whether the model is still in the table, this node its host, and the mesh the same.
fn is_wanted(shared: &Weak<Shared>, id: u64, membership: &Arc<Membership>) -> bool {
    shared.upgrade().is_some_and(|shared| {
        let present = shared.membership.borrow();
        let same = present
            .as_ref()
            .is_some_and(|present| Arc::ptr_eq(present, membership));
        let hosts = shared.models.split_term(id).is_some();
        same && hosts && shared.models.is_split(id)
    })
}

/// Waits for a change that may make this node the host.
async fn turn(shared: &Weak<Shared>, id: u64) {
    let Some(mut table) = shared.upgrade().map(|shared| shared.models.watch()) else {
        return;
    };
    // Looks again now and then: the mesh may be another meanwhile.
    tokio::select! {
        _ = table.wait_for(|table| table.is_host_of(id)) => {}
        () = sleep(LOOK_AGAIN) => {}
    }
}

/// Frees the part of this machine. Streams have been told by then.
async fn end(made: Made) {
    made.backend.shutdown(std::time::Instant::now()).await;
    // Freeing memory takes its time.
    let _ = tokio::task::spawn_blocking(move || drop(made)).await;
}

/// Makes the first plan, which decides what runs here, and loads that.
async fn first(whole: &mut Whole<'_>, trials: &mut Trials) -> Option<Made> {
    let (shared, id, membership) = (whole.shared, whole.id, whole.membership);
    let (subject, plan) = (whole.subject, whole.plan);
    // Only where a plan can be made is it worth to find out how fast everybody is.
    let present = shared.upgrade()?;
    let planned = plan_first(&present, subject, membership, whole.forced);
    // Streams wait for one that takes over from a lost host.
    let is_awaited = present.models.split_follows(id);
    drop(present);
    let planned = match planned {
        Ok(_) if !is_awaited => {
            get_to_know(shared, subject, membership, trials).await;
            // Who has just come says a moment later what is on its disk, and others may come meanwhile.
            let _ = timeout(KNOWN_AFTER * 2, whole.acquaint()).await;
            if whole.target().is_some() {
                return None;
            }
            let present = shared.upgrade()?;
            plan_first(&present, subject, membership, whole.forced)
        }
        planned => planned,
    };
    let present = shared.upgrade()?;
    let start = match planned {
        Ok(start) => start,
        Err(reason) => {
            let told = whole.waits(&reason);
            let reason = told.unwrap_or_else(|| format!("{reason}; {ADD_A_MACHINE}"));
            present.models.split_waits(id, reason);
            return None;
        }
    };
    let (settings, models) = (present.settings.clone(), Arc::clone(&present.models));
    drop(present);
    let progress = move |share: f64| models.split_progress(id, share as f32);
    match make(subject, plan, start, &settings, progress).await {
        Ok(made) => Some(made),
        Err(reason) => {
            let present = shared.upgrade()?;
            let reason = whole.waits(&reason).unwrap_or(reason);
            present.models.split_waits(id, reason);
            None
        }
    }
}

/// This machine as it is to take part.
fn own(shared: Option<&Shared>, node: NodeId, memory_bytes: Option<u64>) -> Own {
    Own {
        node,
        memory_bytes,
        compute: shared.and_then(|shared| shared.compute.get().copied()),
    }
}

/// Who could take part in the first plan, the host among them.
fn with_all<T>(
    shared: &Shared,
    subject: &Subject,
    membership: &Membership,
    work: impl FnOnce(&Scene<'_>) -> T,
) -> T {
    let me = membership.mesh().node_id();
    let memory_bytes = shared.models.free_bytes(shared.settings.memory_bytes_max);
    let fingerprint = subject.fingerprint.to_string();
    let measured = |node: NodeId, threads: u32| shared.speeds.of_model(&fingerprint, node, threads);
    let distances = membership.distances();
    let told = |from: NodeId, to: NodeId| distances.as_ref()?.us(from, to);
    work(&Scene {
        view: &membership.view(),
        own: own(Some(shared), me, Some(memory_bytes)),
        fingerprint: &fingerprint,
        measured: &measured,
        told: &told,
        stage_bytes: subject.stage_bytes,
        without: &BTreeSet::new(),
        held: &BTreeMap::new(),
        beside: false,
        most_bytes: &|_| None,
    })
}

fn plan_first(
    shared: &Shared,
    subject: &Subject,
    membership: &Membership,
    forced: bool,
) -> Result<HostPart, String> {
    with_all(shared, subject, membership, |scene| {
        subject.first_plan(scene, forced)
    })
}

/// Learns how fast the machines are and how far from each other: what they say of their memory, round trips that they
/// measure, and a short run on a layer of this very model where that is possible. For so long at most; then what is
/// known must do, and trials that take longer are of use for later plans.
async fn get_to_know(
    shared: &Weak<Shared>,
    subject: &Subject,
    membership: &Arc<Membership>,
    trials: &mut Trials,
) {
    let until = async |is_so: fn(&Scene<'_>) -> bool| {
        while let Some(present) = shared.upgrade() {
            if with_all(&present, subject, membership, is_so) {
                return;
            }
            drop(present);
            sleep(KNOW_PAUSE).await;
        }
    };
    // Programs of other versions do not say, and not everybody can be reached.
    let _ = tokio::join!(timeout(TOLD_MAX, until(|scene| scene.is_known())), async {
        let _ = timeout(LINKED_MAX, until(|scene| scene.is_linked())).await;
        ask_distances(shared, subject, membership).await;
    },);
    trials.run(shared, subject, membership).await;
}

/// Has the machines that a plan is likely to use measure the round trips between them that nobody has told. Before any
/// of them is busy with a trial, which would make them look farther.
async fn ask_distances(shared: &Weak<Shared>, subject: &Subject, membership: &Membership) {
    let Some(distances) = membership.distances() else {
        return;
    };
    let Some(present) = shared.upgrade() else {
        return;
    };
    let unlinked = with_all(&present, subject, membership, |scene| scene.unlinked());
    drop(present);
    distances.ask(&unlinked).await;
}

/// Sleeps until `at`, or for ever.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
