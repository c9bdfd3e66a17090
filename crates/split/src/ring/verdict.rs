//! Whom to suspect when a ring breaks. Pure.
//!
//! When one machine goes, its neighbours' streams break too and they say so, each from its own sight. So
//! the host gathers for a moment what it hears, and believes what it sees itself before what it is told.

use mesh::NodeId;

use crate::fault::{Fault, Loss};

/// Something that speaks against a machine, the strongest last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Evidence {
    /// A frame is missing, or the data stream from the last worker broke. Nobody in particular.
    Data(String),
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
            Self::Data(_) => 0,
            Self::Accusation(..) => 1,
            Self::BadFrame(_) => 2,
            Self::Confession(..) => 3,
            Self::Gone(..) => 4,
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
    let mut strongest = None::<&Evidence>;
    for one in evidence {
        if strongest.is_none_or(|found| one.strength() > found.strength()) {
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
        Some(Evidence::Data(text)) => seen(stuck, text),
        Some(Evidence::BadFrame(text)) => seen(nodes.len().saturating_sub(1), text),
        Some(Evidence::Confession(place, text) | Evidence::Gone(place, text)) => seen(*place, text),
        Some(Evidence::Accusation(place, fault, text)) => {
            let suspect = match fault {
                // The first worker's rows come from this host, and so do the last one's go to it.
                Fault::Previous => place.checked_sub(1).and_then(node),
                Fault::Next => node(place + 1),
                Fault::Own | Fault::Ended => node(*place),
            };
            Loss {
                suspect,
                accuser: node(*place),
                text: format!("worker {} says: {text}", name(*place)),
            }
        }
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
        let data = || Evidence::Data(text());
        let accuse = |place, fault| Evidence::Accusation(place, fault, text());
        check(&[], Some(1), None);
        check(&[data()], Some(1), None);
        check(&[data(), accuse(2, Fault::Previous)], Some(1), Some(2));
        check(
            &[accuse(0, Fault::Next), accuse(2, Fault::Previous)],
            Some(1),
            Some(0),
        );
        check(&[accuse(0, Fault::Previous)], None, Some(0));
        check(&[accuse(2, Fault::Next)], None, Some(2));
        check(
            &[accuse(0, Fault::Next), Evidence::BadFrame(text())],
            Some(2),
            None,
        );
        check(
            &[
                accuse(0, Fault::Next),
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
