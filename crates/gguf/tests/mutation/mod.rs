//! Damage to files, the same in every run.
#![allow(dead_code)]

/// SplitMix64: the mutations are the same in every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

const ODD_NUMBERS: [u64; 8] = [
    0,
    1,
    0xff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 62,
    u64::MAX,
];

/// Between one and eight changes: bytes, numbers, cuts, and pieces copied elsewhere.
pub(crate) fn mutate(random: &mut Random, file: &mut Vec<u8>) {
    for _ in 0..=random.below(8) {
        if file.len() < 16 {
            return;
        }
        let at = random.below(file.len());
        match random.below(6) {
            0 => file.truncate(at),
            1 => file[at] ^= 1 << random.below(8),
            2 => file[at] = random.below(256) as u8,
            3 => {
                let number = ODD_NUMBERS[random.below(8)].to_le_bytes();
                let n = (file.len() - at).min([4, 8][random.below(2)]);
                file[at..at + n].copy_from_slice(&number[..n]);
            }
            4 => {
                let from = random.below(file.len());
                let n = random.below(64).min(file.len() - at.max(from));
                file.copy_within(from..from + n, at);
            }
            _ => {
                let n = random.below(64).min(file.len() - at);
                file.drain(at..at + n);
            }
        }
    }
}
