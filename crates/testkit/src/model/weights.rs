//! Owns the values of synthetic tensors: seeded noise, and its conversion to F32, F16 and Q8_0.
//! Values are made and written in pieces, so that memory does not grow with the tensor.

use std::io::{self, Write};

use gguf::GgmlType;
use half::f16;

use super::ModelSpec;
use super::tensors::{Kind, TensorSpec};

/// Elements made at once: 1 MiB of F32. A multiple of the block size.
const PIECE_ELEMENTS: usize = 1 << 18;
/// Weights in a Q8_0 block.
const BLOCK: usize = 32;
/// Bytes of a Q8_0 block: a scale (f16) and the weights.
const BLOCK_BYTES: usize = 2 + BLOCK;

/// How a model's matrices are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// 8-bit integers with a 16-bit scale for 32 of them.
    Q8_0,
}

impl WeightType {
    /// The tensors' type.
    #[must_use]
    pub fn ggml_type(self) -> GgmlType {
        match self {
            Self::F32 => GgmlType::F32,
            Self::F16 => GgmlType::F16,
            Self::Q8_0 => GgmlType::Q8_0,
        }
    }

    /// `general.file_type` of a model of it.
    pub(crate) fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q8_0 => 7,
        }
    }
}

/// By which the state of the noise grows with each number.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers on every machine and in every version.
struct Noise(u64);

impl Noise {
    /// Noise of its own for each tensor, so that a tensor does not depend on those before it.
    fn of(seed: u64, name: &str) -> Self {
        // FNV-1a over the name.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
            (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self(hash ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// Leaves out what would fill so many elements, an even number of them.
    fn skip(&mut self, elements: u64) {
        self.0 = self.0.wrapping_add(STEP.wrapping_mul(elements / 2));
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        let z = self.0;
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Fills with even noise between `middle - reach` and `middle + reach`. Even noise is much
    /// cheaper than normal noise and does as well here.
    fn fill(&mut self, out: &mut [f32], middle: f32, reach: f32) {
        let unit = |bits: u32| (bits >> 8) as f32 / (1u32 << 23) as f32 - 1.0;
        for pair in out.chunks_mut(2) {
            let bits = self.next();
            pair[0] = middle + reach * unit(bits as u32);
            if let Some(second) = pair.get_mut(1) {
                *second = middle + reach * unit((bits >> 32) as u32);
            }
        }
    }
}

/// Where token rows are.
const EMBEDDING: &str = "token_embd.weight";

/// Reach of the embedding of a model that writes loops: what the layers add hardly shows beside it, so that the last
/// token alone decides on the next one.
const LOUD: f32 = 100.0;

/// Writes the output matrix of a model that writes loops of so many tokens: a token's row is the embedding of the
/// one before it in its loop, with the values of a matrix, so that no other row is as much like the hidden state.
pub(crate) fn write_loops(spec: &ModelSpec, tokens: u32, out: &mut dyn Write) -> io::Result<()> {
    let width = u64::from(spec.width);
    let reach = (1.5 * 3.0 / width as f32).sqrt();
    let mut row = vec![0f32; width as usize];
    let mut bytes = Vec::new();
    for token in 0..spec.vocab {
        let mut noise = Noise::of(spec.seed, EMBEDDING);
        noise.skip(u64::from(before_in_loop(token, tokens, spec.vocab)) * width);
        noise.fill(&mut row, 0.0, reach);
        bytes.clear();
        encode(&row, spec.weights.ggml_type(), &mut bytes)?;
        out.write_all(&bytes)?;
    }
    Ok(())
}

/// Tokens make loops with their neighbours; the last loop may be shorter.
fn before_in_loop(token: u32, tokens: u32, vocab: u32) -> u32 {
    let start = token - token % tokens.max(1);
    let end = start.saturating_add(tokens.max(1)).min(vocab);
    match token == start {
        true => end - 1,
        false => token - 1,
    }
}

/// Writes a tensor's data.
pub(crate) fn write(tensor: &TensorSpec, spec: &ModelSpec, out: &mut dyn Write) -> io::Result<()> {
    let mut noise = Noise::of(spec.seed, &tensor.name);
    let row = tensor.dims.first().copied().unwrap_or(1).max(1);
    // A matrix of this spread keeps the size of what it multiplies; a little more lets the layers
    // differ from each other in what they add. Even noise spreads by its reach over root three.
    let (middle, reach) = match tensor.kind {
        Kind::Matrix | Kind::FloatMatrix => (0.0, (1.5 * 3.0 / row as f32).sqrt()),
        Kind::Embedding if spec.loop_tokens.is_some() => (0.0, LOUD),
        // Small beside what the layers add: else a model with a tied output says its last token
        // again and again.
        Kind::Embedding => (0.0, 0.05),
        Kind::Norm => (1.0, 0.2),
        Kind::Bias => (0.0, 0.1),
        Kind::Decay => (-1.0, 0.2),
    };
    let ggml_type = tensor.ggml_type(spec.weights);
    let mut left: u64 = tensor.dims.iter().product();
    let mut values = vec![0f32; PIECE_ELEMENTS.min(left as usize)];
    let mut bytes = Vec::new();
    while left > 0 {
        let n = values.len().min(left as usize);
        noise.fill(&mut values[..n], middle, reach);
        bytes.clear();
        encode(&values[..n], ggml_type, &mut bytes)?;
        out.write_all(&bytes)?;
        left -= n as u64;
    }
    Ok(())
}

fn encode(values: &[f32], ggml_type: GgmlType, out: &mut Vec<u8>) -> io::Result<()> {
    match ggml_type {
        GgmlType::F32 => out.extend(values.iter().flat_map(|v| v.to_le_bytes())),
        GgmlType::F16 => out.extend(values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes())),
        GgmlType::Q8_0 => quantize_q8_0(values, out),
        other => {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("cannot make {other}"),
            ));
        }
    }
    Ok(())
}

/// Appends values as Q8_0, by ggml's reference rule: the largest of 32 values becomes 127.
///
/// # Panics
/// When the number of values is not a multiple of 32.
pub fn quantize_q8_0(values: &[f32], out: &mut Vec<u8>) {
    let (blocks, rest) = values.as_chunks::<BLOCK>();
    assert!(
        rest.is_empty(),
        "{} values are no whole number of Q8_0 blocks",
        values.len()
    );
    out.reserve(blocks.len() * BLOCK_BYTES);
    for block in blocks {
        let largest = block.iter().fold(0f32, |m, v| m.max(v.abs()));
        let scale = largest / 127.0;
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        out.extend(f16::from_f32(scale).to_le_bytes());
        let mut quants = [0u8; BLOCK];
        for (q, v) in quants.iter_mut().zip(block) {
            *q = (v * inverse).round() as i8 as u8;
        }
        out.extend(quants);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q8_0_comes_back_within_half_a_step() {
        let mut values = vec![0f32; 64];
        Noise::of(1, "t").fill(&mut values[..32], 0.0, 3.0);
        let mut bytes = Vec::new();
        quantize_q8_0(&values, &mut bytes);
        assert_eq!(bytes.len(), 2 * BLOCK_BYTES);
        assert!(
            bytes[BLOCK_BYTES..].iter().all(|&b| b == 0),
            "a block of zeros stays zero"
        );
        let scale = f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
        for (v, q) in values.iter().zip(&bytes[2..BLOCK_BYTES]) {
            // The scale itself is rounded to 11 bits, which moves 127 steps by a sixteenth of one.
            let error = (v - scale * f32::from(*q as i8)).abs();
            assert!(
                error <= 0.6 * scale,
                "{v} came back {error} off, a step is {scale}"
            );
        }
    }

    #[test]
    fn tokens_make_loops_with_their_neighbours() {
        let walk = |tokens, vocab| -> Vec<u32> {
            (0..vocab)
                .map(|token| before_in_loop(token, tokens, vocab))
                .collect()
        };
        assert_eq!(walk(3, 7), [2, 0, 1, 5, 3, 4, 6]);
        assert_eq!(walk(1, 3), [0, 1, 2]);
        let (mut values, mut row) = (vec![0f32; 12], vec![0f32; 4]);
        Noise::of(1, EMBEDDING).fill(&mut values, 0.0, 1.0);
        let mut noise = Noise::of(1, EMBEDDING);
        noise.skip(8);
        noise.fill(&mut row, 0.0, 1.0);
        assert_eq!(row, values[8..]);
    }

    #[test]
    fn noise_is_even_and_the_same_every_time() {
        let mut values = vec![0f32; 10_001];
        Noise::of(7, "blk.0.attn_q.weight").fill(&mut values, 1.0, 0.5);
        assert!(values.iter().all(|v| (0.5..=1.5).contains(v)));
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        assert!((mean - 1.0).abs() < 0.02, "{mean}");
        let mut again = vec![0f32; 3];
        Noise::of(7, "blk.0.attn_q.weight").fill(&mut again, 1.0, 0.5);
        assert_eq!(again, values[..3]);
        Noise::of(8, "blk.0.attn_q.weight").fill(&mut again, 1.0, 0.5);
        assert_ne!(again, values[..3]);
    }
}
