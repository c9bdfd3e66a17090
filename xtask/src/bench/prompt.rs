//! Prompts of an exact number of tokens. Every server gets the same ones in the same round.

/// Makes strings of random digits: with the bench model's tokenizer each digit is one token.
#[derive(Debug)]
pub(super) struct Digits {
    state: u64,
}

impl Digits {
    /// The same round gives the same prompts.
    pub(super) fn for_round(round: usize) -> Self {
        Self {
            state: (round as u64)
                .wrapping_add(1)
                .wrapping_mul(0x9E37_79B9_7F4A_7C15),
        }
    }

    /// A new string of `count` digits.
    pub(super) fn take(&mut self, count: usize) -> String {
        (0..count).map(|_| self.digit()).collect()
    }

    /// One step of the SplitMix64 generator (Steele, Lea, Flood 2014), reduced to a digit.
    fn digit(&mut self) -> char {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        char::from(b'0' + ((mixed ^ (mixed >> 31)) % 10) as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_by_round_only() {
        let take = |round| Digits::for_round(round).take(32);
        assert_eq!(take(3), take(3));
        assert_ne!(take(3), take(4));
        assert!(take(0).bytes().all(|byte| byte.is_ascii_digit()));
        let mut digits = Digits::for_round(0);
        assert_ne!(digits.take(16), digits.take(16));
    }
}
