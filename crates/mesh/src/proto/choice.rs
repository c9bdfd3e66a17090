//! Owns which members a node wants as neighbours. Pure.
//!
//! The successor in the order of keys makes one ring of all nodes, so nobody is left out; a few
//! more by a hash of both keys make it narrow. Each choice moves only when somebody near it comes or goes.

use std::collections::BTreeSet;

use super::CHOSEN_LINKS;
use crate::NodeId;

/// The wanted neighbours among `candidates`, which come in the order of keys and without `me`.
pub(super) fn choose(me: NodeId, candidates: impl Iterator<Item = NodeId>) -> BTreeSet<NodeId> {
    let mut first = None;
    let mut successor = None;
    let mut best: Vec<(u64, NodeId)> = Vec::with_capacity(CHOSEN_LINKS + 2);
    for node in candidates {
        first = first.or(Some(node));
        if node > me && successor.is_none() {
            successor = Some(node);
        }
        let weight = weight(me, node);
        if best.len() <= CHOSEN_LINKS || best.last().is_some_and(|last| weight > last.0) {
            best.push((weight, node));
            best.sort_unstable_by(|a, b| b.cmp(a));
            // One more than needed, in case the successor is among them.
            best.truncate(CHOSEN_LINKS + 1);
        }
    }
    let successor = successor.or(first);
    let mut chosen: BTreeSet<NodeId> = successor.into_iter().collect();
    let others = best.into_iter().map(|(_, node)| node);
    let others: Vec<NodeId> = others.filter(|node| Some(*node) != successor).collect();
    chosen.extend(others.into_iter().take(CHOSEN_LINKS));
    chosen
}

/// Differs for the two directions of a pair, so that a node well liked by one is not by all.
pub(super) fn weight(me: NodeId, other: NodeId) -> u64 {
    mix(mix(prefix(me)) ^ prefix(other).rotate_left(1))
}

/// The first eight bytes of a key.
pub(super) fn prefix(node: NodeId) -> u64 {
    node.prefix()
}

/// The finaliser of SplitMix64.
fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u64) -> NodeId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&mix(number + 1).to_be_bytes());
        NodeId::from_bytes(bytes)
    }

    fn mesh(size: u64) -> BTreeSet<NodeId> {
        (0..size).map(node).collect()
    }

    fn chosen(me: NodeId, mesh: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
        choose(me, mesh.iter().copied().filter(|n| *n != me))
    }

    #[test]
    fn everybody_chooses_as_many_as_it_should_and_never_itself() {
        for size in [1, 2, 3, 4, 10, 100] {
            let mesh = mesh(size);
            for &me in &mesh {
                let chosen = chosen(me, &mesh);
                assert_eq!(chosen.len(), (CHOSEN_LINKS + 1).min(size as usize - 1));
                assert!(!chosen.contains(&me));
            }
        }
    }

    #[test]
    fn one_who_comes_moves_few_choices() {
        let mut mesh = mesh(200);
        let before: Vec<_> = mesh.iter().map(|&me| (me, chosen(me, &mesh))).collect();
        mesh.insert(node(1_000));
        let moved = before.iter().filter(|(me, old)| chosen(*me, &mesh) != *old);
        assert!(moved.count() < 15);
    }

    #[test]
    fn the_ring_joins_all() {
        let mesh = mesh(50);
        let start = node(0);
        let mut reached = BTreeSet::from([start]);
        let mut todo = vec![start];
        while let Some(me) = todo.pop() {
            todo.extend(chosen(me, &mesh).into_iter().filter(|&n| reached.insert(n)));
        }
        assert_eq!(reached, mesh);
    }
}
