//! Owns reading one file's header: magic, version, metadata, tensor table, and the checks that
//! make the rest of the program safe from damaged or hostile files. It reads no tensor data.

use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;

use crate::blocks::Blocks;
use crate::error::{KeyError, ReadError};
use crate::ggml_type::GgmlType;
use crate::limits::{
    ALIGNMENT_DEFAULT, ALIGNMENT_MAX, ARRAY_DEPTH_MAX, ARRAY_LEN_MAX, DIMS_MAX, KEY_BYTES_MAX,
    KEYS_MAX, STRING_BYTES_MAX, TENSOR_NAME_BYTES_MAX, TENSORS_MAX,
};
use crate::metadata::Metadata;
use crate::source::{ByteSource, FileSource};
use crate::tensor::{self, TensorInfo};
use crate::value::{Array, StringArray, Value, ValueType};

/// Key that sets the alignment of tensor data, in bytes.
pub const KEY_ALIGNMENT: &str = "general.alignment";

/// Fewest bytes of a tensor table row: name length, dimensions count, type and offset.
const TENSOR_ROW_BYTES_MIN: u64 = 8 + 4 + 4 + 8;
/// Fewest bytes of a key with its value: key length, type, a one-byte value.
const KEY_ROW_BYTES_MIN: u64 = 8 + 4 + 1;
/// Elements of a numeric array that are read at once, so that a false length costs no memory.
const ARRAY_CHUNK: usize = 16 * 1024;

/// What stands before the tensor data of one GGUF file.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// GGUF version, 2 or 3.
    pub version: u32,
    /// Keys and values in file order.
    pub metadata: Metadata,
    /// Tensors in file order, with ascending offsets.
    pub tensors: Vec<TensorInfo>,
    /// Alignment of every tensor's data, in bytes: a power of two.
    pub alignment: u32,
    /// Where the data section starts, in bytes from the start of the file.
    pub data_offset: u64,
}

impl Header {
    /// Reads a header from a source. Reads whole blocks in order, and at most one block past the
    /// header's end.
    ///
    /// # Errors
    /// [`ReadError`] for what is not a GGUF file, damaged or truncated. When the source knows its
    /// size, tensor data that is not all there is an error too.
    pub fn read<S: ByteSource + ?Sized>(source: &S) -> Result<Self, ReadError> {
        let mut blocks = Blocks::new(source)?;
        let version = read_version(&mut blocks)?;
        let tensor_count = blocks.u64(&|| "the tensor count".into())?;
        let key_count = blocks.u64(&|| "the key count".into())?;
        blocks.check_len(tensor_count, TENSOR_ROW_BYTES_MIN, TENSORS_MAX, &|| {
            "the tensor table".into()
        })?;
        blocks.check_len(key_count, KEY_ROW_BYTES_MIN, KEYS_MAX, &|| {
            "the metadata".into()
        })?;
        let metadata = read_metadata(&mut blocks, key_count)?;
        let alignment = alignment(&metadata)?;
        let tensors = read_tensors(&mut blocks, tensor_count)?;
        // Cannot overflow: the position is under the header's maximum.
        let data_offset = blocks.position().next_multiple_of(alignment.into());
        let header = Self {
            version,
            metadata,
            tensors,
            alignment,
            data_offset,
        };
        header.check_data(blocks.len)?;
        Ok(header)
    }

    /// Reads the header of a file.
    ///
    /// # Errors
    /// As [`Header::read`], with the path in the message.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ReadError> {
        let path = path.as_ref();
        let name = path.display().to_string();
        FileSource::open(path)
            .map_err(ReadError::from)
            .and_then(|f| Self::read(&f))
            .map_err(|e| e.in_file(&name))
    }

    /// The tensor of this name. Looks through the whole table.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.iter().find(|t| t.name == name)
    }

    /// Where a tensor's data lies, in bytes from the start of the file.
    ///
    /// # Errors
    /// [`KeyError::UnknownTensorType`] when its size is not known.
    pub fn file_range(&self, tensor: &TensorInfo) -> Result<Range<u64>, KeyError> {
        let size = tensor.size_bytes()?;
        let impossible = || KeyError::BadValue {
            key: tensor.name.clone(),
            why: "lies outside any file".into(),
        };
        let start = self
            .data_offset
            .checked_add(tensor.offset)
            .ok_or_else(impossible)?;
        Ok(start..start.checked_add(size).ok_or_else(impossible)?)
    }

    /// Checks offsets: aligned, ascending, without overlap, and inside the file if its size is known.
    fn check_data(&self, len: Option<u64>) -> Result<(), ReadError> {
        let mut end = 0u64;
        for t in &self.tensors {
            let bad = |why: &str| ReadError::invalid(format!("tensor {:?}", t.name), why);
            if t.offset % u64::from(self.alignment) != 0 {
                return Err(bad("has an offset that is not aligned"));
            }
            if t.offset < end {
                return Err(bad("overlaps the tensor before it"));
            }
            let size = if t.ggml_type.block().is_some() {
                tensor::size_bytes(&t.dims, t.ggml_type).map_err(|why| bad(&why))?
            } else {
                0
            };
            end = t
                .offset
                .checked_add(size)
                .filter(|&e| e <= i64::MAX as u64)
                .ok_or_else(|| bad("lies outside any file"))?;
        }
        let needed = self.data_offset + end;
        match len {
            Some(found) if end > 0 && found < needed => {
                Err(ReadError::TruncatedData { needed, found })
            }
            _ => Ok(()),
        }
    }
}

fn read_version<S: ByteSource + ?Sized>(blocks: &mut Blocks<'_, S>) -> Result<u32, ReadError> {
    if blocks.len == Some(0) {
        return Err(ReadError::TruncatedHeader {
            at: 0,
            what: "an empty file".into(),
        });
    }
    let magic: [u8; 4] = blocks.array(&|| "the magic number".into())?;
    if &magic != b"GGUF" {
        return Err(ReadError::Magic {
            found: format!("\"{}\"", magic.escape_ascii()),
        });
    }
    match blocks.u32(&|| "the version".into())? {
        version @ (2 | 3) => Ok(version),
        other if other.swap_bytes() <= 0xffff && other > 0xffff => Err(ReadError::BigEndian),
        found => Err(ReadError::Version { found }),
    }
}

fn read_metadata<S: ByteSource + ?Sized>(
    blocks: &mut Blocks<'_, S>,
    count: u64,
) -> Result<Metadata, ReadError> {
    let mut metadata = Metadata::new();
    for i in 0..count {
        let key = blocks.text(KEY_BYTES_MAX, &|| format!("metadata key {i}"))?;
        if key.is_empty() {
            return Err(ReadError::invalid(format!("metadata key {i}"), "is empty"));
        }
        let what = || format!("the value of key {key:?}");
        let value_type = read_type(blocks, &what)?;
        let value = read_value(blocks, value_type, &what)?;
        if metadata.contains(&key) {
            return Err(ReadError::Duplicate {
                what: "key",
                name: key,
            });
        }
        metadata.set(key, value);
    }
    Ok(metadata)
}

fn read_type<S: ByteSource + ?Sized>(
    blocks: &mut Blocks<'_, S>,
    what: &dyn Fn() -> String,
) -> Result<ValueType, ReadError> {
    let id = blocks.u32(what)?;
    ValueType::from_id(id)
        .ok_or_else(|| ReadError::invalid(what(), format!("has unknown type {id}")))
}

fn read_value<S: ByteSource + ?Sized>(
    blocks: &mut Blocks<'_, S>,
    value_type: ValueType,
    what: &dyn Fn() -> String,
) -> Result<Value, ReadError> {
    Ok(match value_type {
        ValueType::U8 => Value::U8(u8::from_le_bytes(blocks.array(what)?)),
        ValueType::I8 => Value::I8(i8::from_le_bytes(blocks.array(what)?)),
        ValueType::U16 => Value::U16(u16::from_le_bytes(blocks.array(what)?)),
        ValueType::I16 => Value::I16(i16::from_le_bytes(blocks.array(what)?)),
        ValueType::U32 => Value::U32(u32::from_le_bytes(blocks.array(what)?)),
        ValueType::I32 => Value::I32(i32::from_le_bytes(blocks.array(what)?)),
        ValueType::F32 => Value::F32(f32::from_le_bytes(blocks.array(what)?)),
        ValueType::U64 => Value::U64(u64::from_le_bytes(blocks.array(what)?)),
        ValueType::I64 => Value::I64(i64::from_le_bytes(blocks.array(what)?)),
        ValueType::F64 => Value::F64(f64::from_le_bytes(blocks.array(what)?)),
        ValueType::Bool => Value::Bool(to_bool(blocks.array::<1>(what)?[0], what)?),
        ValueType::String => Value::String(blocks.text(STRING_BYTES_MAX, what)?),
        ValueType::Array => Value::Array(read_array(blocks, ARRAY_DEPTH_MAX, what)?),
    })
}

fn to_bool(byte: u8, what: &dyn Fn() -> String) -> Result<bool, ReadError> {
    match byte {
        0 | 1 => Ok(byte == 1),
        other => Err(ReadError::invalid(
            what(),
            format!("is a bool with value {other}"),
        )),
    }
}

fn read_array<S: ByteSource + ?Sized>(
    blocks: &mut Blocks<'_, S>,
    depth_left: u32,
    what: &dyn Fn() -> String,
) -> Result<Array, ReadError> {
    let Some(depth_left) = depth_left.checked_sub(1) else {
        return Err(ReadError::invalid(
            what(),
            format!("nests arrays over {ARRAY_DEPTH_MAX} deep"),
        ));
    };
    let element = read_type(blocks, what)?;
    let count = blocks.u64(what)?;
    let count = blocks.check_len(count, element.bytes_min(), ARRAY_LEN_MAX, what)?;
    Ok(match element {
        ValueType::U8 => Array::U8(read_numbers(blocks, count, u8::from_le_bytes, what)?),
        ValueType::I8 => Array::I8(read_numbers(blocks, count, i8::from_le_bytes, what)?),
        ValueType::U16 => Array::U16(read_numbers(blocks, count, u16::from_le_bytes, what)?),
        ValueType::I16 => Array::I16(read_numbers(blocks, count, i16::from_le_bytes, what)?),
        ValueType::U32 => Array::U32(read_numbers(blocks, count, u32::from_le_bytes, what)?),
        ValueType::I32 => Array::I32(read_numbers(blocks, count, i32::from_le_bytes, what)?),
        ValueType::F32 => Array::F32(read_numbers(blocks, count, f32::from_le_bytes, what)?),
        ValueType::U64 => Array::U64(read_numbers(blocks, count, u64::from_le_bytes, what)?),
        ValueType::I64 => Array::I64(read_numbers(blocks, count, i64::from_le_bytes, what)?),
        ValueType::F64 => Array::F64(read_numbers(blocks, count, f64::from_le_bytes, what)?),
        ValueType::Bool => {
            let bytes = read_numbers(blocks, count, u8::from_le_bytes, what)?;
            Array::Bool(
                bytes
                    .into_iter()
                    .map(|b| to_bool(b, what))
                    .collect::<Result<_, _>>()?,
            )
        }
        ValueType::String => {
            let mut strings = StringArray::default();
            for _ in 0..count {
                strings.push(blocks.bytes(STRING_BYTES_MAX, what)?);
            }
            Array::String(strings)
        }
        ValueType::Array => {
            let mut arrays = Vec::new();
            for _ in 0..count {
                arrays.push(read_array(blocks, depth_left, what)?);
            }
            Array::Array(arrays)
        }
    })
}

fn read_numbers<S: ByteSource + ?Sized, T, const N: usize>(
    blocks: &mut Blocks<'_, S>,
    count: usize,
    from_le: impl Fn([u8; N]) -> T,
    what: &dyn Fn() -> String,
) -> Result<Vec<T>, ReadError> {
    let mut out = Vec::new();
    let mut buf = vec![0u8; count.min(ARRAY_CHUNK) * N];
    while out.len() < count {
        let n = (count - out.len()).min(ARRAY_CHUNK);
        blocks.fill(&mut buf[..n * N], what)?;
        out.extend(buf[..n * N].as_chunks::<N>().0.iter().map(|&b| from_le(b)));
    }
    out.shrink_to_fit();
    Ok(out)
}

fn alignment(metadata: &Metadata) -> Result<u32, ReadError> {
    let bad = |why: String| ReadError::invalid(format!("key {KEY_ALIGNMENT:?}"), why);
    match metadata.get(KEY_ALIGNMENT) {
        None => Ok(ALIGNMENT_DEFAULT),
        Some(Value::U32(a)) if a.is_power_of_two() && *a <= ALIGNMENT_MAX => Ok(*a),
        Some(Value::U32(a)) => Err(bad(format!(
            "is {a}, not a power of two up to {ALIGNMENT_MAX}"
        ))),
        Some(other) => Err(bad(format!(
            "is of type {}, expected u32",
            other.value_type()
        ))),
    }
}

fn read_tensors<S: ByteSource + ?Sized>(
    blocks: &mut Blocks<'_, S>,
    count: u64,
) -> Result<Vec<TensorInfo>, ReadError> {
    let mut tensors: Vec<TensorInfo> = Vec::new();
    let mut names = HashSet::new();
    for i in 0..count {
        let name = blocks.text(TENSOR_NAME_BYTES_MAX, &|| format!("the name of tensor {i}"))?;
        let what = || format!("the table row of tensor {name:?}");
        let bad = |why: String| ReadError::invalid(format!("tensor {name:?}"), why);
        let dim_count = blocks.u32(&what)? as usize;
        if dim_count > DIMS_MAX {
            return Err(bad(format!(
                "has {dim_count} dimensions, over the maximum of {DIMS_MAX}"
            )));
        }
        let mut dims = Vec::with_capacity(dim_count);
        for _ in 0..dim_count {
            dims.push(blocks.u64(&what)?);
        }
        let ggml_type = GgmlType::from_id(blocks.u32(&what)?);
        let offset = blocks.u64(&what)?;
        tensor::elements(&dims).ok_or_else(|| bad(format!("has an impossible shape {dims:?}")))?;
        if !names.insert(name.clone()) {
            return Err(ReadError::Duplicate {
                what: "tensor",
                name,
            });
        }
        tensors.push(TensorInfo {
            name,
            dims,
            ggml_type,
            offset,
        });
    }
    Ok(tensors)
}
