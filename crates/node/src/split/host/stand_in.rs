//! Whether one machine can take the place of another that was lost, so that all others keep what they hold. Pure.

use std::collections::BTreeSet;

use mesh::NodeId;
use split::plan::{Plan, ROUND_TRIP_MAX};

use super::super::pool::Scene;
use super::making::{Share, Subject};

/// A ring that keeps its layers where they are may be so much slower than the best one: that would have to load and to
/// fill its caches, while streams wait. A better one is moved to later, if it pays.
const SLOWER_MAX: f64 = 1.25;

impl Subject {
    /// The share `before` with another machine in the place of the one that is not there any more; the fastest of
    /// those with room. `None` if nobody has room, or none or several are gone.
    pub(super) fn stand_in(&self, scene: &Scene<'_>, before: &Share, start: u32) -> Option<Share> {
        let pool = self.pinned_scene(scene, start)?.pool()?;
        let there: BTreeSet<NodeId> = pool.candidates().iter().map(|one| one.id).collect();
        let mut gone = before
            .seats
            .iter()
            .filter(|seat| !there.contains(&seat.node));
        let lost = gone.next()?.node;
        if gone.next().is_some() {
            return None;
        }
        let needed_bytes = *before.held.get(&lost)?;
        let is_used = |node: NodeId| {
            node == scene.own.node || before.seats.iter().any(|seat| seat.node == node)
        };
        let room = pool
            .candidates()
            .iter()
            .filter(|one| !is_used(one.id) && one.memory_bytes >= needed_bytes);
        let shares = room.filter_map(|one| {
            let mut share = before.clone();
            for seat in share.seats.iter_mut().filter(|seat| seat.node == lost) {
                seat.node = one.id;
            }
            let ring: Vec<NodeId> = (share.seats.iter().map(|seat| seat.node))
                .chain([scene.own.node])
                .collect();
            let mut links = ring.iter().zip(ring.iter().cycle().skip(1));
            let is_near = links.all(|(from, to)| {
                let round_trip = pool.round_trip(*from, *to);
                round_trip.is_some_and(|round_trip| round_trip <= ROUND_TRIP_MAX)
            });
            let plan = self
                .settled(scene, &share.seats, start)
                .filter(|_| is_near)?;
            share.expect(&plan);
            share.first_token = self.first_token(scene, &share.seats, start);
            share.held.remove(&lost);
            share.held.insert(one.id, needed_bytes);
            Some(share)
        });
        shares.min_by(|a, b| a.token_s.total_cmp(&b.token_s))
    }
}

impl Share {
    /// Notes what to expect of it.
    fn expect(&mut self, plan: &Plan<NodeId>) {
        self.token_s = plan.token_time.as_secs_f64();
        let prefill = plan.stages.iter().map(|stage| stage.prefill_row_time);
        self.prefill_row = prefill.max().unwrap_or_default();
    }

    /// Whether to go on with this one instead of `best`, where machines keep what they hold.
    pub(super) fn is_worth_it(&self, best: &Self) -> bool {
        self.token_s <= best.token_s * SLOWER_MAX
    }
}
