//! One model over several machines, with this node as its host: plans, brings up the last part here and
//! the ring to the others, and does what [`Recovery`] says when a machine is lost.

mod making;
mod ring;

use std::sync::{Arc, Weak};
use std::time::Duration;

use split::station::Station;
use tokio::time::{Instant, sleep, sleep_until};

use self::making::{Made, Subject, make};
use self::ring::RingKeeper;
use super::pool::Own;
use crate::loader::Plan;
use crate::membership::Membership;
use crate::node::Shared;

/// Pause between two looks whether the model can be split by now.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Keeps the model of table entry `id` until it is dropped or the node is gone.
pub(crate) async fn keep(shared: Weak<Shared>, id: u64, plan: Plan) {
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
    loop {
        let Some((membership, station)) = mesh(&shared, id).await else {
            return;
        };
        if made.is_none() {
            made = first(&shared, id, &subject, &membership, &plan).await;
        }
        let Some(made) = &mut made else {
            // Why is in the table; the mesh may be another by now.
            sleep(LOOK_AGAIN).await;
            continue;
        };
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

/// Makes the first plan, which decides what runs here, and loads that.
async fn first(
    shared: &Weak<Shared>,
    id: u64,
    subject: &Subject,
    membership: &Arc<Membership>,
    plan: &Plan,
) -> Option<Made> {
    let present = shared.upgrade()?;
    let own = Own {
        node: membership.mesh().node_id(),
        memory_bytes: Some(present.models.free_bytes(present.settings.memory_bytes_max)),
    };
    let start = match subject.first_plan(&membership.view(), own) {
        Ok(start) => start,
        Err(reason) => {
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
            present.models.split_waits(id, reason);
            None
        }
    }
}

/// Sleeps until `at`, or for ever.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
