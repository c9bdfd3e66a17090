//! Who could run layers of a model, from what the mesh says. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use mesh::NodeId;
use mesh::Role;
use mesh::proto::{Member, View};
use split::plan::nodes::BANDWIDTH_GB_S_DEFAULT;
use split::plan::{CANDIDATES_MAX, Candidate, Pool, Speed};

/// Round trip that is assumed where none is measured: a stranger somewhere on the continent.
const ROUND_TRIP_UNKNOWN: Duration = Duration::from_millis(50);

/// This machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Own {
    pub(super) node: NodeId,
    /// Memory that the model may take here, bytes; `None`: it takes no part.
    pub(super) memory_bytes: Option<u64>,
}

/// Machines that could take part, but those in `without`, and the round trips between them. Who lacks the
/// model's file fetches its layers.
pub(super) fn pool(
    view: &View,
    own: Own,
    fingerprint: &str,
    without: &BTreeSet<NodeId>,
) -> Option<Pool<NodeId>> {
    let speed = Speed::from_bandwidth(BANDWIDTH_GB_S_DEFAULT * 1e9).ok()?;
    let could = |member: &&Member| {
        member.node != own.node
            && member.role() == Role::Serve
            && !without.contains(&member.node)
            && member.announcement().info.memory_free_bytes > 0
    };
    let has = |member: &Member| {
        let local = &member.announcement().info.local;
        local.iter().any(|local| local.fingerprint == fingerprint)
    };
    let mut members: Vec<&Member> = view.alive().filter(could).collect();
    members.sort_by_key(|member| std::cmp::Reverse(member.announcement().info.memory_free_bytes));
    members.truncate(CANDIDATES_MAX - 1);
    let here = own.memory_bytes.map(|bytes| (own.node, bytes, true));
    let others = members.iter().map(|member| {
        let bytes = member.announcement().info.memory_free_bytes;
        (member.node, bytes, has(member))
    });
    let candidates = here.into_iter().chain(others);
    let candidates = candidates.map(|(id, memory_bytes, has_weights)| Candidate {
        id,
        memory_bytes,
        speed,
        has_weights,
    });
    let mut pool = Pool::new(candidates).ok()?;
    for (index, member) in members.iter().enumerate() {
        if own.memory_bytes.is_some() {
            pool.link(own.node, member.node, from_here(member)).ok()?;
        }
        for other in &members[..index] {
            pool.link(member.node, other.node, between(member, other))
                .ok()?;
        }
    }
    Some(pool)
}

fn from_here(member: &Member) -> Duration {
    member
        .round_trip_us
        .map_or(ROUND_TRIP_UNKNOWN, |us| Duration::from_micros(us.into()))
}

/// What one of them has measured; else no more than the way over this node.
fn between(one: &Member, other: &Member) -> Duration {
    let measured = |from: &Member, to: &Member| {
        let trips = &from.announcement().round_trips;
        trips
            .iter()
            .find(|trip| trip.is_to(to.node))
            .map(|trip| trip.us)
    };
    let us = measured(one, other).or_else(|| measured(other, one));
    us.map_or_else(
        || from_here(one) + from_here(other),
        |us| Duration::from_micros(us.into()),
    )
}
