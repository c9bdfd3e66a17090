//! How far members are from each other: a question about some of them, and what was measured.

use mesh::NodeId;
use mesh::codec::{self, Fixed};
use serde::{Deserialize, Serialize};

use super::WireError;

/// Most members that one question names, and one answer: a plan uses no more machines.
pub(crate) const TRIPS_MAX: usize = 8;

/// Most bytes of a question or an answer. A member with its round trip takes some 50.
pub(crate) const TRIPS_BYTES_MAX: usize = 1_024;

#[derive(Debug, Serialize, Deserialize)]
struct AskWire {
    #[serde(default)]
    nodes: Vec<Fixed<32>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct TripsWire {
    #[serde(default)]
    trips: Vec<TripWire>,
}

#[derive(Debug, Serialize, Deserialize)]
struct TripWire {
    node: Fixed<32>,
    us: u32,
}

/// The bytes of a question how far these members are.
pub(crate) fn ask_bytes(nodes: &[NodeId]) -> Vec<u8> {
    let nodes = nodes.iter().map(|node| Fixed::from(*node)).collect();
    codec::encode(&AskWire { nodes })
}

/// Reads such a question.
pub(crate) fn read_ask(bytes: &[u8]) -> Result<Vec<NodeId>, WireError> {
    let AskWire { nodes } = codec::decode(bytes, TRIPS_BYTES_MAX)?;
    limit(nodes.len())?;
    Ok(nodes.into_iter().map(NodeId::from).collect())
}

/// The bytes of an answer: members with the round trips to them in microseconds.
pub(crate) fn trips_bytes(trips: &[(NodeId, u32)]) -> Vec<u8> {
    let trips = trips.iter().map(|(node, us)| TripWire {
        node: Fixed::from(*node),
        us: *us,
    });
    codec::encode(&TripsWire {
        trips: trips.collect(),
    })
}

/// Reads such an answer.
pub(crate) fn read_trips(bytes: &[u8]) -> Result<Vec<(NodeId, u32)>, WireError> {
    let TripsWire { trips } = codec::decode(bytes, TRIPS_BYTES_MAX)?;
    limit(trips.len())?;
    let trips = trips.into_iter();
    Ok(trips.map(|trip| (trip.node.into(), trip.us)).collect())
}

fn limit(members: usize) -> Result<(), WireError> {
    match members > TRIPS_MAX {
        true => Err(WireError::Range("number of members")),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: usize) -> Vec<NodeId> {
        (0..count)
            .map(|number| NodeId::from_bytes([number as u8; 32]))
            .collect()
    }

    fn trips(count: usize) -> Vec<(NodeId, u32)> {
        let nodes = nodes(count).into_iter();
        nodes.map(|node| (node, u32::MAX)).collect()
    }

    #[test]
    fn questions_and_answers_come_back_whole_and_too_long_ones_do_not() {
        for count in [0, 1, TRIPS_MAX] {
            assert_eq!(read_ask(&ask_bytes(&nodes(count))), Ok(nodes(count)));
            assert_eq!(read_trips(&trips_bytes(&trips(count))), Ok(trips(count)));
        }
        let range = Err(WireError::Range("number of members"));
        assert_eq!(read_ask(&ask_bytes(&nodes(TRIPS_MAX + 1))), range);
        let read = read_trips(&trips_bytes(&trips(TRIPS_MAX + 1)));
        assert_eq!(read, Err(WireError::Range("number of members")));
        let long = read_ask(&ask_bytes(&nodes(100)));
        assert!(matches!(long, Err(WireError::Decode(_))));
    }
}
