//! Bits a weight takes in llama.cpp's mixtures.

/// A mixture of tensor types. Bits are in thousandths.
///
/// Types of the down projections follow from llama.cpp's `llama-quant.cpp`, and so does what replaces them where
/// rows are no multiple of 256 elements (Q2_K and Q3_K by Q4_0, Q4_K by Q5_0, Q5_K by Q5_1, Q6_K by Q8_0). All
/// other matrices share a mean that makes the sum that of the published files of Llama 3.3 70B. Publishers
/// have mixtures of their own: one Q6_K file of Qwen3.5 397B has 342 GB where this gives 325.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantisation {
    /// Its name in file names.
    pub name: &'static str,
    /// Of all matrices but the down projections of feed-forward layers.
    pub(super) bits_milli: u64,
    /// Of down projections.
    pub(super) down_bits_milli: u64,
    /// Of down projections whose rows are no multiple of 256 elements.
    pub(super) down_odd_bits_milli: u64,
}

/// The mixtures in use, smallest first.
pub const QUANTISATIONS: [Quantisation; 7] = [
    // Down: Q3_K.
    mixture("Q2_K", 2_813, 3_438, 4_500),
    // Down: a sixteenth Q5_K, the others Q4_K.
    mixture("Q3_K_M", 3_640, 4_563, 5_531),
    // Down: half Q6_K, half Q4_K.
    mixture("Q4_K_M", 4_560, 5_531, 7_000),
    // Down: half Q6_K, half Q5_K.
    mixture("Q5_K_M", 5_530, 6_031, 7_250),
    mixture("Q6_K", 6_563, 6_563, 8_500),
    mixture("Q8_0", 8_500, 8_500, 8_500),
    mixture("F16", 16_000, 16_000, 16_000),
];

const fn mixture(
    name: &'static str,
    bits_milli: u64,
    down_bits_milli: u64,
    down_odd_bits_milli: u64,
) -> Quantisation {
    Quantisation {
        name,
        bits_milli,
        down_bits_milli,
        down_odd_bits_milli,
    }
}

impl Quantisation {
    /// Bytes of a matrix.
    pub(super) fn bytes(&self, elements: u64) -> u64 {
        elements * self.bits_milli / 8_000
    }

    /// Bytes of down projections with rows of `row` elements.
    pub(super) fn down_bytes(&self, elements: u64, row: u64) -> u64 {
        const SUPER_BLOCK: u64 = 256;
        let bits = if row.is_multiple_of(SUPER_BLOCK) {
            self.down_bits_milli
        } else {
            self.down_odd_bits_milli
        };
        elements * bits / 8_000
    }
}
