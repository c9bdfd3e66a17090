//! Whom to suspect when a ring breaks. Pure.
//!
//! When one machine goes, its neighbours' streams break too and they say so, each from its own sight. So
//! the host gathers for a moment what it hears, and believes what it sees itself before what it is told,
//! and bad bytes before streams that broke. A worker that ends because of another one breaks the streams of
//! its other neighbour too: an accusation of somebody who accuses is most likely only that.

use mesh::NodeId;

use crate::fault::{Fault, Loss};

/// Something that speaks against a machine, the strongest last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Evidence {
    /// A frame is missing. Nobody in particular.
    Missing(String),
    /// The host's own data stream to or from the worker at a place broke.
    Broken(usize, String),
    /// A frame from the last worker is wrong.
    BadFrame(String),
    /// The worker at a place accuses a neighbour.
    Accusation(usize, Fault, String),
    /// The worker at a place says that it can't go on, or its lease has ended.
    Confession(usize, String),
    /// The control stream of the worker at a place is gone, silent, or makes no sense.
    Gone(usize, String),
}

impl Evidence {
    fn strength(&self) -> u8 {
        match self {
            Self::Missing(_) => 0,
            Self::Accusation(_, Fault::Previous, _) => 2,
            Self::Accusation(..) | Self::Broken(..) => 1,
            Self::BadFrame(_) => 3,
            Self::Confession(..) => 4,
            Self::Gone(..) => 5,
        }
    }

    /// Whom an accusation is about; a place before the first or behind the last one is the host's.
    fn accused(&self) -> Option<Option<usize>> {
        match self {
            Self::Accusation(place, Fault::NextGone, _) => Some(Some(place + 1)),
            Self::Accusation(place, ..) => Some(place.checked_sub(1)),
            Self::Broken(place, _) => Some(Some(*place)),
            _ => None,
        }
    }

    /// Nothing that may still come can be stronger.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::Gone(..) | Self::Confession(..))
    }
}

/// How far a worker says that it is: frames received and passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) received: u64,
    pub(super) sent: u64,
}

/// Where the frame `number` got stuck, by what the workers say of themselves.
pub(super) fn stuck_at(number: u64, workers: &[Progress]) -> usize {
    let stuck = workers
        .iter()
        .position(|worker| worker.received <= number || worker.sent <= number);
    stuck.unwrap_or(workers.len().saturating_sub(1))
}

/// The strongest evidence decides; of equals, the first.
pub(super) fn judge(evidence: &[Evidence], nodes: &[NodeId], stuck: usize) -> Loss {
    let accuses = |place: usize| {
        let mut evidence = evidence.iter();
        evidence.any(|e| matches!(e, Evidence::Accusation(p, ..) if *p == place))
    };
    let weight = |one: &Evidence| {
        let accused = one.accused().flatten();
        let is_consequence = accused.is_some_and(accuses);
        (one.strength(), !is_consequence)
    };
    let mut strongest = None::<&Evidence>;
    for one in evidence {
        if strongest.is_none_or(|found| weight(one) > weight(found)) {
            strongest = Some(one);
        }
    }
    let node = |place: usize| nodes.get(place).copied();
    let name = |place: usize| node(place).map_or_else(String::new, |node| node.short());
    let seen = |place: usize, text: &str| Loss {
        suspect: node(place),
        accuser: None,
        text: format!("worker {}: {text}", name(place)),
    };
    match strongest {
        None => seen(stuck, "lost"),
        Some(Evidence::Missing(text)) => seen(stuck, text),
        Some(Evidence::BadFrame(text)) => seen(nodes.len().saturating_sub(1), text),
        Some(
            Evidence::Broken(place, text)
            | Evidence::Confession(place, text)
            | Evidence::Gone(place, text),
        ) => seen(*place, text),
        Some(accusation @ Evidence::Accusation(place, _, text)) => Loss {
            suspect: accusation.accused().flatten().and_then(node),
            accuser: node(*place),
            text: format!("worker {} says: {text}", name(*place)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId::from_bytes([number; 32])
    }

    #[track_caller]
    fn check(evidence: &[Evidence], suspect: Option<u8>, accuser: Option<u8>) {
        let loss = judge(evidence, &[node(0), node(1), node(2)], 1);
        assert_eq!(loss.suspect, suspect.map(node));
        assert_eq!(loss.accuser, accuser.map(node));
    }

    #[test]
    fn what_is_seen_weighs_more_than_what_is_told() {
        let text = String::new;
        let data = || Evidence::Missing(text());
        let accuse = |place, fault| Evidence::Accusation(place, fault, text());
        check(&[], Some(1), None);
        check(&[data()], Some(1), None);
        check(&[data(), accuse(2, Fault::Previous)], Some(1), Some(2));
        check(
            &[accuse(0, Fault::NextGone), accuse(2, Fault::PreviousGone)],
            Some(1),
            Some(0),
        );
        // The first one ended because of the host, the rest because of each other.
        let gone = |place| accuse(place, Fault::PreviousGone);
        check(&[gone(2), gone(1), gone(0)], None, Some(0));
        check(&[gone(2), gone(1)], Some(0), Some(1));
        let broken = Evidence::Broken(2, text());
        check(std::slice::from_ref(&broken), Some(2), None);
        check(&[broken, gone(2)], Some(1), Some(2));
        // One sends nonsense and then sees that the other does not take it.
        check(
            &[accuse(0, Fault::NextGone), accuse(1, Fault::Previous)],
            Some(0),
            Some(1),
        );
        check(&[accuse(0, Fault::Previous)], None, Some(0));
        check(&[accuse(2, Fault::NextGone)], None, Some(2));
        check(
            &[accuse(0, Fault::NextGone), Evidence::BadFrame(text())],
            Some(2),
            None,
        );
        check(
            &[
                accuse(0, Fault::NextGone),
                Evidence::Confession(2, text()),
                data(),
            ],
            Some(2),
            None,
        );
        check(
            &[Evidence::Confession(2, text()), Evidence::Gone(1, text())],
            Some(1),
            None,
        );
    }

    #[test]
    fn a_frame_is_stuck_where_it_was_not_passed_on() {
        let at = |workers: [(u64, u64); 3]| {
            let progress = workers.map(|(received, sent)| Progress { received, sent });
            stuck_at(4, &progress)
        };
        assert_eq!(at([(4, 4), (4, 4), (4, 4)]), 0);
        assert_eq!(at([(5, 4), (4, 4), (4, 4)]), 0);
        assert_eq!(at([(5, 5), (4, 4), (4, 4)]), 1);
        assert_eq!(at([(6, 5), (5, 5), (5, 4)]), 2);
        assert_eq!(at([(6, 5), (5, 5), (5, 5)]), 2);
    }
}
