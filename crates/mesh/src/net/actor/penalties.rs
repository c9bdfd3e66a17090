//! Owns who broke a rule lately and is not let in for a while. Pure.

use std::collections::BTreeMap;

use crate::NodeId;

/// How long a peer that broke a rule is not let in, in milliseconds.
const PENALTY_MS: u64 = 10_000;

/// Most peers that are remembered for that. They are members: strangers can't make it long.
const PENALTIES_MAX: usize = 1_024;

/// Peers that broke a rule, and until when they are not let in.
#[derive(Debug, Default)]
pub(super) struct Penalties {
    until_ms: BTreeMap<NodeId, u64>,
}

impl Penalties {
    /// Begins, or begins anew.
    pub(super) fn add(&mut self, node: NodeId, now_ms: u64) {
        self.until_ms.retain(|_, until_ms| *until_ms > now_ms);
        if self.until_ms.len() < PENALTIES_MAX || self.until_ms.contains_key(&node) {
            self.until_ms.insert(node, now_ms + PENALTY_MS);
        }
    }

    /// Whether `node` is not let in now.
    pub(super) fn holds(&self, node: NodeId, now_ms: u64) -> bool {
        self.until_ms
            .get(&node)
            .is_some_and(|until_ms| *until_ms > now_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u64) -> NodeId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        NodeId::from_bytes(bytes)
    }

    #[test]
    fn a_fault_keeps_its_author_out_for_a_while_and_nobody_else() {
        let mut penalties = Penalties::default();
        assert!(!penalties.holds(node(1), 0));
        penalties.add(node(1), 500);
        assert!(penalties.holds(node(1), 500));
        assert!(penalties.holds(node(1), 499 + PENALTY_MS));
        assert!(!penalties.holds(node(1), 500 + PENALTY_MS));
        assert!(!penalties.holds(node(2), 500));
        // A second fault counts from its own time.
        penalties.add(node(1), 5_000);
        assert!(penalties.holds(node(1), 4_999 + PENALTY_MS));
        assert!(!penalties.holds(node(1), 5_000 + PENALTY_MS));
    }

    #[test]
    fn what_is_remembered_has_a_bound_and_what_is_over_makes_room() {
        let mut penalties = Penalties::default();
        let most = u64::try_from(PENALTIES_MAX).unwrap();
        for number in 0..=most {
            penalties.add(node(number), 0);
        }
        assert_eq!(penalties.until_ms.len(), PENALTIES_MAX);
        assert!(penalties.holds(node(0), 1) && !penalties.holds(node(most), 1));
        // Who is in it already is kept out longer, room or not.
        penalties.add(node(0), 1_000);
        assert!(penalties.holds(node(0), PENALTY_MS));
        penalties.add(node(most), PENALTY_MS);
        assert!(penalties.holds(node(most), PENALTY_MS));
        assert_eq!(penalties.until_ms.len(), 2);
    }
}
