//! Owns slices whose weights are made up: of the true types and shapes, for whoever has a model's headers alone and
//! wants to know how long its layers take. What such layers compute is of no use.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};

use super::error::SliceError;
use super::plan::{PieceOrigin, SlicePlan, repeat};
use crate::error::WriteError;
use crate::ggml_type::GgmlType;
use crate::tensor::TensorInfo;

/// Part of the names of tensors that choose experts, or say how much of a shared one counts.
const ROUTER: &str = ".ffn_gate_inp";

/// End of the names of what rows are multiplied by once they are normalised.
const NORM: &str = "norm.weight";

/// Beginning of the names of what rotary positions are divided by.
const ROTARY: &str = "rope_";

/// A block of zeros: the exponent of its scale, then 32 halves of bytes. With an exponent of 0 the scale would be
/// so small (2^-128) that some processors take many times as long to multiply by it.
const MXFP4_ZEROS: [u8; 17] = [127, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Numbers that are made at a time.
const NOISE_PIECE: u64 = 4096;

impl SlicePlan {
    /// Makes the planned slice of a new and empty file without the model's weights. Nearly all of it is a hole, which
    /// most file systems keep no bytes for; only matrices of MXFP4 are written in full. What chooses experts holds the
    /// same random numbers each time, so that tokens go to different ones; scales of norms, and what rotary positions
    /// are divided by, hold ones; all else holds zeros. Layers of it take as long as the true ones and compute finite
    /// numbers.
    ///
    /// # Errors
    /// [`SliceError::Tensor`] for a type of which nothing can be made up; [`SliceError::Write`] when the file can't be
    /// written. What was written by then is useless.
    pub fn write_made_up(&self, file: &File) -> Result<(), SliceError> {
        file.set_len(self.file_bytes()).map_err(WriteError::from)?;
        let mut out = BufWriter::new(file);
        out.write_all(&self.header()?).map_err(WriteError::from)?;
        for (tensor, piece) in self.tensors().iter().zip(self.pieces()) {
            let content = Content::of(tensor, &piece.origin)?;
            if !matches!(content, Content::Hole) {
                let start = SeekFrom::Start(piece.target.start);
                out.seek(start).map_err(WriteError::from)?;
            }
            let bytes = piece.target.end - piece.target.start;
            let written = match content {
                Content::Hole => Ok(()),
                Content::Same(pattern) => repeat(&mut out, &pattern, bytes),
                Content::Noise(number) => noise(&mut out, tensor, number),
            };
            written.map_err(WriteError::from)?;
        }
        out.flush().map_err(WriteError::from)?;
        Ok(())
    }
}

/// What is made up for a tensor.
#[derive(Debug)]
enum Content {
    /// Zeros that are not written.
    Hole,
    /// The same bytes again and again.
    Same(Vec<u8>),
    /// Numbers on both sides of zero.
    Noise(Number),
}

impl Content {
    fn of(tensor: &TensorInfo, origin: &PieceOrigin) -> Result<Self, SliceError> {
        let name = tensor.name.as_str();
        if name.contains(ROUTER) {
            return Ok(Self::Noise(Number::of(tensor)?));
        }
        // Zeros would make all rows zero, and then all choices of experts the same; angles would not even be numbers.
        if *origin == PieceOrigin::Ones || name.ends_with(NORM) || name.starts_with(ROTARY) {
            let mut one = Vec::new();
            Number::of(tensor)?.push(1.0, &mut one);
            return Ok(Self::Same(one));
        }
        Self::zeros(tensor)
    }

    /// A type that is new must be looked at: bytes of zero may stand for other numbers, or be slow to compute with.
    fn zeros(tensor: &TensorInfo) -> Result<Self, SliceError> {
        use GgmlType as T;
        match tensor.ggml_type {
            T::MXFP4 => Ok(Self::Same(MXFP4_ZEROS.to_vec())),
            // Plain numbers, and blocks whose scales are such numbers, or taken for zero (NVFP4).
            T::F32
            | T::F16
            | T::BF16
            | T::F64
            | T::I8
            | T::I16
            | T::I32
            | T::I64
            | T::Q4_0
            | T::Q4_1
            | T::Q5_0
            | T::Q5_1
            | T::Q8_0
            | T::Q8_1
            | T::Q1_0
            | T::Q2_0
            | T::Q2_K
            | T::Q3_K
            | T::Q4_K
            | T::Q5_K
            | T::Q6_K
            | T::Q8_K
            | T::IQ1_S
            | T::IQ1_M
            | T::IQ2_XXS
            | T::IQ2_XS
            | T::IQ2_S
            | T::IQ3_XXS
            | T::IQ3_S
            | T::IQ4_NL
            | T::IQ4_XS
            | T::TQ1_0
            | T::TQ2_0
            | T::NVFP4 => Ok(Self::Hole),
            T::Unknown(_) => Err(not_made_up(tensor)),
        }
    }
}

fn not_made_up(tensor: &TensorInfo) -> SliceError {
    SliceError::Tensor {
        name: tensor.name.clone(),
        why: format!("is stored as {}, which can't be made up", tensor.ggml_type),
    }
}

/// How single numbers are stored.
#[derive(Debug, Clone, Copy)]
enum Number {
    F32,
    F16,
    BF16,
}

impl Number {
    fn of(tensor: &TensorInfo) -> Result<Self, SliceError> {
        match tensor.ggml_type {
            GgmlType::F32 => Ok(Self::F32),
            GgmlType::F16 => Ok(Self::F16),
            GgmlType::BF16 => Ok(Self::BF16),
            _ => Err(not_made_up(tensor)),
        }
    }

    /// Appends a number between 2^-14 and 2^15, or its negative, of seven binary places after the first: all three
    /// hold it exactly.
    fn push(self, number: f32, out: &mut Vec<u8>) {
        /// Difference between the two exponents' biases, where F16 has its exponent.
        const BIAS: u32 = (127 - 15) << 10;
        let bits = number.to_bits();
        match self {
            Self::F32 => out.extend_from_slice(&bits.to_le_bytes()),
            Self::BF16 => out.extend_from_slice(&((bits >> 16) as u16).to_le_bytes()),
            Self::F16 => {
                let sign = (bits >> 16) & 0x8000;
                let magnitude = ((bits & 0x7fff_ffff) >> 13).saturating_sub(BIAS);
                out.extend_from_slice(&((sign | magnitude) as u16).to_le_bytes());
            }
        }
    }
}

/// Writes numbers that follow from the tensor's name.
fn noise(out: &mut dyn Write, tensor: &TensorInfo, number: Number) -> io::Result<()> {
    let mut state = seed(&tensor.name);
    let mut left = tensor.elements().unwrap_or(0);
    let mut piece = Vec::new();
    while left > 0 {
        let count = left.min(NOISE_PIECE);
        piece.clear();
        for _ in 0..count {
            number.push(between(random(&mut state)), &mut piece);
        }
        out.write_all(&piece)?;
        left -= count;
    }
    Ok(())
}

/// Between 1/32 and 1/16, or its negative: for rows of some thousand elements the sums are neither all alike nor so far
/// apart that one expert would be all that counts.
fn between(random: u64) -> f32 {
    let magnitude = f32::from(0x80 | (random & 0x7f) as u8) / 4096.0;
    if random & 0x80 == 0 {
        magnitude
    } else {
        -magnitude
    }
}

/// FNV-1a, 64 bits.
fn seed(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The next number of splitmix64 (Steele, Lea, Flood 2014).
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
