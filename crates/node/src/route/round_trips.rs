//! How far nodes were when a connection to them was last open. Pure.
//!
//! A round trip is measured while there is a connection; without one a host a street away would pass for
//! one on another continent.

use std::collections::BTreeMap;

use mesh::NodeId;

use super::{Candidate, Place};

/// Nodes whose round trips are remembered: all hosts of large meshes.
const NODES_MAX: usize = 256;

/// Round trips as they were measured last.
#[derive(Debug, Default)]
pub(crate) struct RoundTrips {
    nodes: BTreeMap<NodeId, Trip>,
    /// Counts what was noted.
    notes: u64,
}

#[derive(Debug, Clone, Copy)]
struct Trip {
    us: u32,
    /// The number of the note; the smallest is the oldest.
    note: u64,
}

impl RoundTrips {
    /// Remembers what is measured now, `us` microseconds; forgets the oldest if there are too many.
    pub(crate) fn note(&mut self, node: NodeId, us: u32) {
        self.notes += 1;
        let note = self.notes;
        self.nodes.insert(node, Trip { us, note });
        if self.nodes.len() > NODES_MAX {
            let oldest = self.nodes.iter().min_by_key(|(_, trip)| trip.note);
            if let Some(oldest) = oldest.map(|(node, _)| *node) {
                self.nodes.remove(&oldest);
            }
        }
    }

    /// Fills in what is not measured now.
    pub(crate) fn fill(&self, candidates: &mut [Candidate]) {
        for candidate in candidates {
            if let (Place::Peer(node), None) = (candidate.place, candidate.round_trip_us) {
                candidate.round_trip_us = self.nodes.get(&node).map(|trip| trip.us);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u16) -> NodeId {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        NodeId::from_bytes(bytes)
    }

    /// What is taken for the round trip to `place`, of which `measured` is known now.
    fn filled(trips: &RoundTrips, place: Place, measured: Option<u32>) -> Option<u32> {
        let mut candidates = [Candidate {
            place,
            fingerprint: String::new(),
            slots: 1,
            busy: 0,
            queued: 0,
            round_trip_us: measured,
            suspect: false,
        }];
        trips.fill(&mut candidates);
        candidates[0].round_trip_us
    }

    #[test]
    fn the_last_measurement_stands_in_for_one_that_is_missing() {
        let mut trips = RoundTrips::default();
        let place = Place::Peer(node(1));
        assert_eq!(filled(&trips, place, None), None);
        trips.note(node(1), 900);
        trips.note(node(1), 700);
        assert_eq!(filled(&trips, place, None), Some(700));
        assert_eq!(filled(&trips, place, Some(5)), Some(5));
        assert_eq!(filled(&trips, Place::Peer(node(2)), None), None);
        assert_eq!(filled(&trips, Place::Here, Some(0)), Some(0));
    }

    #[test]
    fn the_oldest_of_too_many_are_forgotten() {
        let mut trips = RoundTrips::default();
        let known = |trips: &RoundTrips, number| filled(trips, Place::Peer(node(number)), None);
        for number in 0..256 {
            trips.note(node(number), u32::from(number));
        }
        // The first is measured again, so that the second is the oldest.
        trips.note(node(0), 1_000);
        trips.note(node(256), 256);
        assert_eq!(known(&trips, 0), Some(1_000));
        assert_eq!(known(&trips, 1), None);
        assert_eq!(known(&trips, 2), Some(2));
        assert_eq!(known(&trips, 256), Some(256));
        assert_eq!(trips.nodes.len(), NODES_MAX);
    }
}
