//! What workers have found that they lack: pure. A worker counts more exactly than the planner can, buffers and
//! what others lease of it included, and refuses what does not fit. It is asked for less then, not left out.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh::NodeId;
use tokio::time::Instant;

/// A refusal counts for so long: others may give memory back.
const REFUSED_FOR: Duration = Duration::from_secs(30);

/// So many refusals of one worker while they count, then it is left out like any other that fails: each takes an
/// attempt, and a layer less was not enough.
const REFUSALS_MAX: u32 = 4;

#[derive(Debug, Clone, Copy)]
struct Refused {
    /// What it may be planned with, bytes.
    most_bytes: u64,
    times: u32,
    until: Instant,
}

/// Refusals for lack of memory.
#[derive(Debug, Default)]
pub(in crate::split) struct Rooms(BTreeMap<NodeId, Refused>);

impl Rooms {
    /// Notes that a worker was planned with so much and lacks so much. False: it is not worth to ask it for less.
    pub(in crate::split) fn refused(
        &mut self,
        node: NodeId,
        planned_bytes: u64,
        missing_bytes: u64,
        now: Instant,
    ) -> bool {
        self.0.retain(|_, refused| now < refused.until);
        let times = self.0.get(&node).map_or(0, |refused| refused.times) + 1;
        let most_bytes = planned_bytes.saturating_sub(missing_bytes);
        let until = now + REFUSED_FOR;
        let refused = Refused {
            most_bytes,
            times,
            until,
        };
        self.0.insert(node, refused);
        missing_bytes > 0 && most_bytes > 0 && times < REFUSALS_MAX
    }

    /// The most that a worker may be planned with, if it has refused something.
    pub(in crate::split) fn most_bytes(&self, node: NodeId, now: Instant) -> Option<u64> {
        let refused = self.0.get(&node).filter(|refused| now < refused.until);
        refused.map(|refused| refused.most_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_refuses_is_asked_for_less_for_a_while_and_not_for_ever() {
        let (mut rooms, now) = (Rooms::default(), Instant::now());
        let node = NodeId::from_bytes([7; 32]);
        assert_eq!(rooms.most_bytes(node, now), None);
        assert!(rooms.refused(node, 300, 40, now));
        assert_eq!(rooms.most_bytes(node, now), Some(260));
        assert!(rooms.refused(node, 250, 40, now));
        assert_eq!(rooms.most_bytes(node, now), Some(210));
        assert!(rooms.refused(node, 200, 40, now));
        assert!(
            !rooms.refused(node, 150, 40, now),
            "it was asked often enough"
        );
        let later = now + REFUSED_FOR;
        assert_eq!(rooms.most_bytes(node, later), None);
        assert!(rooms.refused(node, 300, 40, later), "that was long ago");
        // It has room for nothing, or says what can't be.
        assert!(!rooms.refused(NodeId::from_bytes([8; 32]), 300, 300, now));
        assert!(!rooms.refused(NodeId::from_bytes([9; 32]), 300, 0, now));
    }
}
