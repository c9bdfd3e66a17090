//! Owns the fixed maxima of the reader and writer. Every number says why it is that number.
//!
//! They bound time and memory for bytes of unknown origin. All of them lie far above what real models use.

/// Most bytes a header (metadata and tensor table) may take. Vocabularies of 262,144 tokens with
/// merges take about 20 MiB, so this leaves a factor of ten.
pub const HEADER_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Most metadata keys. Real files have about 50; imatrix files a few hundred.
pub const KEYS_MAX: u64 = 65_536;

/// Most tensors in one part. A model with 1,000 layers of 100 tensors fits.
pub const TENSORS_MAX: u64 = 131_072;

/// Most bytes in a key, as the GGUF specification says.
pub const KEY_BYTES_MAX: u64 = 65_535;

/// Most bytes in a string value. Chat templates, the longest ones seen, stay under 1 MiB.
pub const STRING_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Most elements of one array. The largest known vocabularies have under a million merges.
pub const ARRAY_LEN_MAX: u64 = 16 * 1024 * 1024;

/// How deep arrays may nest. Nothing in use nests at all; the specification allows it.
pub const ARRAY_DEPTH_MAX: u32 = 4;

/// Most bytes in a tensor name that is read. llama.cpp takes 63, other programs write a little more.
pub const TENSOR_NAME_BYTES_MAX: u64 = 255;

/// Most bytes in a tensor name that is written: what llama.cpp loads.
pub const TENSOR_NAME_BYTES_MAX_WRITE: usize = 63;

/// Most dimensions of a tensor, as in ggml.
pub const DIMS_MAX: usize = 4;

/// Largest alignment of the data section, in bytes. Page and huge-page sized alignments fit.
pub const ALIGNMENT_MAX: u32 = 2 * 1024 * 1024;

/// Alignment of a file that does not name one, in bytes.
pub const ALIGNMENT_DEFAULT: u32 = 32;

/// Most parts of a multi-part model. The largest published models have under 200.
pub const PARTS_MAX: u32 = 1_024;

/// Most layers for which per-layer values are expanded. llama.cpp itself stops at 512.
pub const LAYERS_MAX: u32 = 4_096;

/// Widest hidden state of a model that is sliced, in elements. The widest known models stay under
/// 32,768; this keeps the rows that are made up for a stage small, whatever a header says.
pub const WIDTH_MAX: u32 = 1 << 20;

/// Bytes that a source is asked for at once unless it names another size. Large enough that a
/// request over a network pays, small enough that a tiny header wastes little.
pub const BLOCK_BYTES_DEFAULT: usize = 256 * 1024;

/// Smallest and largest block size, in bytes, that a source may ask for.
pub const BLOCK_BYTES_RANGE: std::ops::RangeInclusive<usize> = 512..=4 * 1024 * 1024;

/// Buffer for copying tensor data from a source to a writer, in bytes.
pub const COPY_BYTES: usize = 1024 * 1024;
