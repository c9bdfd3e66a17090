//! Owns the quick hashes of the simulation: names of nodes, stand-ins for signatures, the trace.
//! None of them withstands an attacker; none needs to.

use crate::NodeId;

/// One step of SplitMix64.
pub(super) fn mix(value: u64) -> u64 {
    let mut value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Folds `bytes` into `start`.
pub(super) fn mix_bytes(start: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut state = start ^ (bytes.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for word in words {
        state = (state ^ u64::from_le_bytes(*word)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        state ^= state >> 32;
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix(state ^ u64::from_le_bytes(last))
}

/// The name of node `index`: spread evenly, as keys are.
pub(super) fn node_id(seed: u64, index: usize) -> NodeId {
    let mut bytes = [0; 32];
    for (part, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(0u64..) {
        *part = mix(mix(seed ^ 0x6e6f_6465) ^ (index as u64 * 4 + word)).to_le_bytes();
    }
    NodeId::from_bytes(bytes)
}
