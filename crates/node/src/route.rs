//! Which host gets a request. Pure.

mod round_trips;

use mesh::NodeId;

pub(crate) use self::round_trips::RoundTrips;

/// A request that waits for a slot waits about so long for each one before it, ms. Only ratios to
/// the other numbers here matter.
const TURN_MS: f64 = 2_000.0;

/// A running request beside ours makes tokens come slower, ms: less than a wait, more than a
/// round trip within a city.
const NEIGHBOUR_MS: f64 = 60.0;

/// Evaluating a byte of a prompt takes about so long, ms (2,500 tokens a second); a host that has it
/// already is so much nearer.
const BYTE_MS: f64 = 0.1;

/// So much further are others than this machine, ms, beside the way to them: what a request costs here
/// it does not take from somebody else's users, and a short beginning that is warm there is no reason to
/// leave a model that is loaded here.
const ELSEWHERE_MS: f64 = 20.0;

/// A host that somebody hears nothing from may be gone: noticing that takes seconds.
const SUSPECT_MS: f64 = 5_000.0;

/// Round trip that is assumed where none was ever measured, ms: a stranger somewhere on the continent.
const UNKNOWN_ROUND_TRIP_MS: f64 = 50.0;

/// Round trips until the first token: the call, and the token.
const ROUND_TRIPS: f64 = 1.0;

/// Where a model can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Place {
    /// In this process.
    Here,
    /// On another node.
    Peer(NodeId),
}

/// A host of the model that is asked for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Candidate {
    /// Where.
    pub(crate) place: Place,
    /// Identity of the content there.
    pub(crate) fingerprint: String,
    /// Requests that can run there at the same time.
    pub(crate) slots: u32,
    /// Requests that run there, as far as known.
    pub(crate) busy: u32,
    /// Requests that wait there, as far as known.
    pub(crate) queued: u32,
    /// Round trip to it, once measured; 0 for here.
    pub(crate) round_trip_us: Option<u32>,
    /// Whether somebody hears nothing from it.
    pub(crate) suspect: bool,
}

/// Orders hosts, the best first. `warm`: which of them has the beginning of the request, and how
/// many bytes of it.
pub(crate) fn rank(mut candidates: Vec<Candidate>, warm: Option<(Place, usize)>) -> Vec<Candidate> {
    let cost = |candidate: &Candidate| {
        let saved = match warm {
            Some((place, bytes)) if place == candidate.place => bytes as f64 * BYTE_MS,
            _ => 0.0,
        };
        cost_ms(candidate) - saved
    };
    candidates.sort_by(|a, b| cost(a).total_cmp(&cost(b)).then(a.place.cmp(&b.place)));
    candidates
}

/// Time until the first token, without the prompt's own evaluation, ms.
fn cost_ms(candidate: &Candidate) -> f64 {
    let round_trip = match (candidate.place, candidate.round_trip_us) {
        (Place::Here, _) => 0.0,
        (Place::Peer(_), Some(us)) => f64::from(us) / 1000.0,
        (Place::Peer(_), None) => UNKNOWN_ROUND_TRIP_MS,
    };
    let elsewhere = match candidate.place {
        Place::Here => 0.0,
        Place::Peer(_) => ELSEWHERE_MS,
    };
    let slots = candidate.slots.max(1);
    let running = candidate.busy.min(slots);
    let ahead =
        candidate.queued + candidate.busy.saturating_sub(slots) + u32::from(running >= slots);
    let suspicion = if candidate.suspect { SUSPECT_MS } else { 0.0 };
    round_trip * ROUND_TRIPS
        + elsewhere
        + f64::from(running) * NEIGHBOUR_MS
        + f64::from(ahead) * TURN_MS / f64::from(slots)
        + suspicion
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u8) -> Place {
        Place::Peer(NodeId::from_bytes([number; 32]))
    }

    fn candidate(place: Place, busy: u32, queued: u32, round_trip_ms: u32) -> Candidate {
        Candidate {
            place,
            fingerprint: String::new(),
            slots: 4,
            busy,
            queued,
            round_trip_us: Some(round_trip_ms * 1000),
            suspect: false,
        }
    }

    fn check(candidates: Vec<Candidate>, warm: Option<(Place, usize)>, best: Place) {
        let told = format!("{candidates:?} {warm:?}");
        assert_eq!(rank(candidates, warm)[0].place, best, "{told}");
    }

    #[test]
    fn near_free_and_warm_hosts_come_first() {
        let (a, b) = (node(1), node(2));
        let idle = |place, ms| candidate(place, 0, 0, ms);
        check(vec![idle(a, 5), idle(Place::Here, 0)], None, Place::Here);
        check(vec![idle(a, 20), idle(b, 5)], None, b);
        // A busy machine here loses to an idle one nearby, not to one far away.
        check(vec![idle(a, 5), candidate(Place::Here, 1, 0, 0)], None, a);
        check(
            vec![idle(a, 90), candidate(Place::Here, 1, 0, 0)],
            None,
            Place::Here,
        );
        // No slot free here: even far away is sooner.
        check(vec![idle(a, 150), candidate(Place::Here, 4, 2, 0)], None, a);
        // Where the beginning is, unless there is a queue.
        check(vec![idle(Place::Here, 0), idle(a, 20)], Some((a, 1_000)), a);
        // A few words that are warm elsewhere are no reason to go there.
        check(
            vec![idle(Place::Here, 0), idle(a, 1)],
            Some((a, 100)),
            Place::Here,
        );
        check(
            vec![idle(Place::Here, 0), candidate(a, 4, 9, 20)],
            Some((a, 5_000)),
            Place::Here,
        );
        let suspect = Candidate {
            suspect: true,
            ..idle(a, 1)
        };
        check(vec![suspect, candidate(b, 3, 0, 60)], None, b);
        let unmeasured = Candidate {
            round_trip_us: None,
            ..idle(a, 0)
        };
        check(vec![unmeasured, idle(b, 20)], None, b);
    }

    #[test]
    fn equal_hosts_have_an_order() {
        let all = vec![candidate(node(2), 1, 0, 3), candidate(node(1), 1, 0, 3)];
        let mut turned = all.clone();
        turned.reverse();
        assert_eq!(rank(all, None), rank(turned, None));
    }
}
