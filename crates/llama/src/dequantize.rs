//! Rows of weights as floats, by ggml's own routines.
// C's enums are signed on Windows.
#![allow(clippy::unnecessary_cast)]

use llama_cpp_sys_2 as sys;

use crate::backend;

/// Why weights could not be turned into floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DequantizeError {
    /// ggml does not know the type, or can't turn it into floats.
    #[error("weights of type {0} can't be turned into floats")]
    Type(u32),
    /// The bytes are not those of so many weights.
    #[error("{bytes} bytes are not {elements} weights of type {type_id}")]
    Size {
        /// Bytes given.
        bytes: usize,
        /// Elements wanted.
        elements: usize,
        /// The type's number in a GGUF file.
        type_id: u32,
    },
}

/// Turns whole blocks of weights into floats, bit by bit what llama.cpp looks up on a CPU. `type_id`:
/// the type's number in a GGUF file.
///
/// # Errors
/// [`DequantizeError`]; `out` is unchanged then.
pub fn dequantize(type_id: u32, bytes: &[u8], out: &mut [f32]) -> Result<(), DequantizeError> {
    backend::init();
    let unknown = DequantizeError::Type(type_id);
    let is_known = type_id < sys::GGML_TYPE_COUNT as u32;
    // SAFETY: within ggml's table, whose rows live as long as the process.
    let traits =
        is_known.then(|| unsafe { &*sys::ggml_get_type_traits(type_id as sys::ggml_type) });
    let traits = traits
        .filter(|t| t.blck_size > 0 && t.type_size > 0)
        .ok_or(unknown)?;
    let wrong_size = DequantizeError::Size {
        bytes: bytes.len(),
        elements: out.len(),
        type_id,
    };
    let block = usize::try_from(traits.blck_size).map_err(|_| unknown)?;
    if !out.len().is_multiple_of(block)
        || (out.len() / block).checked_mul(traits.type_size) != Some(bytes.len())
    {
        return Err(wrong_size);
    }
    if type_id == sys::GGML_TYPE_F32 as u32 {
        for (value, four) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *value = f32::from_le_bytes(*four);
        }
        return Ok(());
    }
    let to_float = traits.to_float.ok_or(unknown)?;
    let elements = i64::try_from(out.len()).map_err(|_| wrong_size)?;
    // ggml reads the blocks as structs, which want an alignment that a file's bytes need not have.
    let mut aligned = vec![0u64; bytes.len().div_ceil(size_of::<u64>())];
    // SAFETY: both are valid for `bytes.len()` bytes and do not overlap; any bytes make a `u64`.
    unsafe {
        bytes
            .as_ptr()
            .copy_to_nonoverlapping(aligned.as_mut_ptr().cast(), bytes.len());
    }
    // SAFETY: the input holds as many blocks as `out` has room for, as was checked above; no block
    // wants more than the alignment of a `u64`; any bytes are weights of some value.
    unsafe { to_float(aligned.as_ptr().cast(), out.as_mut_ptr(), elements) };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_and_blocks_come_out() {
        let mut out = [0f32; 2];
        let bytes: Vec<u8> = [1.5f32, -2.0]
            .iter()
            .flat_map(|f| f.to_le_bytes())
            .collect();
        dequantize(sys::GGML_TYPE_F32 as u32, &bytes, &mut out).unwrap();
        assert_eq!(out, [1.5, -2.0]);
        // Q8_0: a scale of 0.5 (f16), then 32 bytes; at an odd address.
        let mut block = vec![0, 0x00, 0x38];
        block.extend((0..32u8).map(|i| if i == 1 { 0xff } else { i }));
        let mut out = [0f32; 32];
        dequantize(sys::GGML_TYPE_Q8_0 as u32, &block[1..], &mut out).unwrap();
        assert_eq!(out[..4], [0.0, -0.5, 1.0, 1.5]);
    }

    #[test]
    fn wrong_sizes_and_types_are_refused() {
        let q8 = sys::GGML_TYPE_Q8_0 as u32;
        let error = dequantize(q8, &[0; 33], &mut [0.0; 32]).unwrap_err();
        assert!(matches!(error, DequantizeError::Size { bytes: 33, .. }));
        assert!(dequantize(q8, &[0; 34], &mut [0.0; 31]).is_err());
        for id in [4, 1000, u32::MAX] {
            let error = dequantize(id, &[0; 4], &mut [0.0; 1]).unwrap_err();
            assert_eq!(error, DequantizeError::Type(id));
        }
    }
}
