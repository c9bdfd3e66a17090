//! Owns writing GGUF: a [`Plan`] of metadata and tensors becomes a header, then tensor data is
//! streamed in the plan's order. Memory stays bounded however large the tensors are.

use std::io::{self, Write};

use crate::blocks::read_once;
use crate::encode;
use crate::error::WriteError;
use crate::ggml_type::GgmlType;
use crate::header::{Header, KEY_ALIGNMENT};
use crate::limits::{
    ALIGNMENT_DEFAULT, ALIGNMENT_MAX, ARRAY_DEPTH_MAX, COPY_BYTES, HEADER_BYTES_MAX, KEY_BYTES_MAX,
    KEYS_MAX, TENSOR_NAME_BYTES_MAX_WRITE, TENSORS_MAX,
};
use crate::metadata::Metadata;
use crate::source::ByteSource;
use crate::tensor::{self, TensorInfo};
use crate::value::{Array, Value};

/// What a file will hold: metadata and the tensor table. Offsets follow from the order.
#[derive(Debug, Clone)]
pub struct Plan {
    version: u32,
    metadata: Metadata,
    alignment: u32,
    tensors: Vec<TensorInfo>,
    /// Bytes of the data section so far, padding included.
    data_bytes: u64,
}

impl Plan {
    /// A version 3 file with this metadata and no tensors yet.
    ///
    /// # Errors
    /// When a key or value cannot be stored, or `general.alignment` is not a power of two.
    pub fn new(metadata: Metadata) -> Result<Self, WriteError> {
        let alignment = match metadata.get(KEY_ALIGNMENT) {
            None => ALIGNMENT_DEFAULT,
            Some(Value::U32(a)) if a.is_power_of_two() && *a <= ALIGNMENT_MAX => *a,
            Some(_) => {
                let why = format!("must be a u32, a power of two up to {ALIGNMENT_MAX}");
                return Err(WriteError::invalid(format!("key {KEY_ALIGNMENT:?}"), why));
            }
        };
        check_metadata(&metadata)?;
        Ok(Self {
            version: 3,
            metadata,
            alignment,
            tensors: Vec::new(),
            data_bytes: 0,
        })
    }

    /// The same metadata, tensors and version as a file that was read. Gaps between tensors, which
    /// some programs leave, are closed.
    ///
    /// # Errors
    /// As [`Plan::new`] and [`Plan::add`].
    pub fn of(header: &Header) -> Result<Self, WriteError> {
        let mut plan = Self {
            version: header.version,
            ..Self::new(header.metadata.clone())?
        };
        for t in &header.tensors {
            plan.add(&t.name, &t.dims, t.ggml_type)?;
        }
        Ok(plan)
    }

    /// Adds a tensor at the end. Dimensions have the row length first.
    ///
    /// # Errors
    /// When the name is taken, empty or too long, the type unknown, or the shape impossible.
    pub fn add(
        &mut self,
        name: &str,
        dims: &[u64],
        ggml_type: GgmlType,
    ) -> Result<&TensorInfo, WriteError> {
        let bad = |why: String| WriteError::invalid(format!("tensor {name:?}"), why);
        if name.is_empty() || name.len() > TENSOR_NAME_BYTES_MAX_WRITE {
            return Err(bad(format!(
                "a name has 1 to {TENSOR_NAME_BYTES_MAX_WRITE} bytes"
            )));
        }
        if self.tensors.len() as u64 >= TENSORS_MAX {
            return Err(bad(format!("a file has at most {TENSORS_MAX} tensors")));
        }
        let size = tensor::size_bytes(dims, ggml_type).map_err(|why| bad(format!("it {why}")))?;
        let offset = self.data_bytes;
        let end = offset
            .checked_add(size)
            .and_then(|e| e.checked_next_multiple_of(self.alignment.into()));
        self.data_bytes = end
            .filter(|&e| e <= i64::MAX as u64)
            .ok_or_else(|| bad("the file would be too large".into()))?;
        let info = TensorInfo {
            name: name.to_owned(),
            dims: dims.to_vec(),
            ggml_type,
            offset,
        };
        Ok(self.tensors.push_mut(info))
    }

    /// The tensors so far, with their offsets in the data section.
    #[must_use]
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The metadata.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Bytes of the data section, padding included.
    #[must_use]
    pub fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    /// The header's bytes, padded to where tensor data starts.
    ///
    /// # Errors
    /// When two tensors have one name, or the header is larger than a reader takes.
    pub fn header_bytes(&self) -> Result<Vec<u8>, WriteError> {
        let mut names = std::collections::HashSet::new();
        if let Some(t) = self.tensors.iter().find(|t| !names.insert(t.name.as_str())) {
            return Err(WriteError::invalid(
                format!("tensor {:?}", t.name),
                "the name is taken",
            ));
        }
        let mut out = Vec::new();
        out.extend_from_slice(b"GGUF");
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&(self.tensors.len() as u64).to_le_bytes());
        out.extend_from_slice(&(self.metadata.len() as u64).to_le_bytes());
        for (key, value) in self.metadata.iter() {
            encode::bytes(&mut out, key.as_bytes())?;
            encode::typed_value(&mut out, value)?;
        }
        for t in &self.tensors {
            encode::tensor(&mut out, t)?;
            out.extend_from_slice(&t.offset.to_le_bytes());
        }
        out.resize(out.len().next_multiple_of(self.alignment as usize), 0);
        if out.len() as u64 > HEADER_BYTES_MAX {
            return Err(WriteError::invalid(
                "the header",
                format!("it is over {HEADER_BYTES_MAX} bytes"),
            ));
        }
        Ok(out)
    }

    /// Writes the header to a sink. Tensor data follows through the [`Writer`].
    ///
    /// # Errors
    /// As [`Plan::header_bytes`], and when the sink fails.
    pub fn start<W: Write>(self, mut sink: W) -> Result<Writer<W>, WriteError> {
        sink.write_all(&self.header_bytes()?)?;
        Ok(Writer {
            sink,
            plan: self,
            next: 0,
        })
    }
}

/// A file whose header is written, waiting for tensor data in the plan's order.
#[derive(Debug)]
pub struct Writer<W> {
    sink: W,
    plan: Plan,
    /// Index of the tensor that is due.
    next: usize,
}

impl<W: Write> Writer<W> {
    /// The tensor that is due, or `None` when all are written.
    #[must_use]
    pub fn due(&self) -> Option<&TensorInfo> {
        self.plan.tensors.get(self.next)
    }

    /// Writes the due tensor's data in one piece.
    ///
    /// # Errors
    /// When another tensor is due, the length is wrong, or the sink fails.
    pub fn tensor(&mut self, name: &str, data: &[u8]) -> Result<(), WriteError> {
        self.stream(name, |out| out.write_all(data))
    }

    /// Writes the due tensor's data from a closure that writes it in as many pieces as it likes.
    ///
    /// # Errors
    /// When another tensor is due, the closure fails or writes too much or too little, or the
    /// sink fails. The file is then useless.
    pub fn stream(
        &mut self,
        name: &str,
        fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), WriteError> {
        let wanted = self.expect(name)?;
        let mut counted = Counted {
            sink: &mut self.sink,
            left: wanted,
            over: false,
        };
        let result = fill(&mut counted);
        let (left, over) = (counted.left, counted.over);
        if over || (result.is_ok() && left > 0) {
            let found = if over {
                wanted.saturating_add(1)
            } else {
                wanted - left
            };
            return Err(WriteError::Size {
                tensor: name.to_owned(),
                wanted,
                found,
            });
        }
        result?;
        self.pad(wanted)
    }

    /// Copies the due tensor's data from `offset` in a source, through a buffer of fixed size.
    ///
    /// # Errors
    /// When another tensor is due, the source fails or ends early, or the sink fails.
    pub fn copy<S: ByteSource + ?Sized>(
        &mut self,
        name: &str,
        source: &S,
        offset: u64,
    ) -> Result<(), WriteError> {
        let size = self.expect(name)?;
        let len = usize::try_from(size).map_or(COPY_BYTES, |size| size.min(COPY_BYTES));
        self.copy_through(name, source, offset, &mut vec![0; len], &mut |_| true)?;
        Ok(())
    }

    /// As [`Writer::copy`], through a buffer that lives longer. `progress` is told how many
    /// bytes each step wrote; when it returns false, nothing more is written and the result is false.
    pub(crate) fn copy_through<S: ByteSource + ?Sized>(
        &mut self,
        name: &str,
        source: &S,
        offset: u64,
        buf: &mut [u8],
        progress: &mut dyn FnMut(u64) -> bool,
    ) -> Result<bool, WriteError> {
        let size = self.expect(name)?;
        let from = |source| WriteError::Source {
            tensor: name.to_owned(),
            source,
        };
        let mut done = 0u64;
        while done < size {
            let want = usize::try_from(size - done).map_or(buf.len(), |left| left.min(buf.len()));
            let got = match offset.checked_add(done) {
                Some(at) => read_once(source, at, &mut buf[..want]).map_err(from)?,
                None => 0,
            };
            if got == 0 {
                return Err(from(io::ErrorKind::UnexpectedEof.into()));
            }
            self.sink.write_all(&buf[..got])?;
            done += got as u64;
            if !progress(got as u64) {
                return Ok(false);
            }
        }
        self.pad(size)?;
        Ok(true)
    }

    /// Checks that every tensor is written, flushes, and gives the sink back.
    ///
    /// # Errors
    /// When a tensor is still due or the sink fails.
    pub fn finish(mut self) -> Result<W, WriteError> {
        if let Some(due) = self.due() {
            return Err(WriteError::Unfinished {
                due: due.name.clone(),
            });
        }
        self.sink.flush()?;
        Ok(self.sink)
    }

    /// Bytes of the due tensor, if it is the one named.
    fn expect(&self, name: &str) -> Result<u64, WriteError> {
        let due = self
            .due()
            .filter(|t| t.name == name)
            .ok_or_else(|| WriteError::Order {
                found: name.to_owned(),
                wanted: self.due().map_or("the end", |t| &t.name).to_owned(),
            })?;
        due.size_bytes()
            .map_err(|e| WriteError::invalid(format!("tensor {name:?}"), e.to_string()))
    }

    fn pad(&mut self, size: u64) -> Result<(), WriteError> {
        let alignment = u64::from(self.plan.alignment);
        let padding = size.next_multiple_of(alignment) - size;
        io::copy(&mut io::Read::take(io::repeat(0), padding), &mut self.sink)?;
        self.next += 1;
        Ok(())
    }
}

/// Passes on at most `left` bytes.
struct Counted<'w, W> {
    sink: &'w mut W,
    left: u64,
    over: bool,
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if buf.len() as u64 > self.left {
            self.over = true;
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "more bytes than the tensor takes",
            ));
        }
        let n = self.sink.write(buf)?;
        self.left -= n as u64;
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

fn check_metadata(metadata: &Metadata) -> Result<(), WriteError> {
    if metadata.len() as u64 > KEYS_MAX {
        return Err(WriteError::invalid(
            "the metadata",
            format!("it has over {KEYS_MAX} keys"),
        ));
    }
    for (key, value) in metadata.iter() {
        if key.is_empty() || key.len() as u64 > KEY_BYTES_MAX {
            return Err(WriteError::invalid(
                format!("key {key:?}"),
                format!("a key has 1 to {KEY_BYTES_MAX} bytes"),
            ));
        }
        if let Value::Array(array) = value
            && depth(array) > ARRAY_DEPTH_MAX
        {
            return Err(WriteError::invalid(
                format!("key {key:?}"),
                format!("arrays nest over {ARRAY_DEPTH_MAX} deep"),
            ));
        }
    }
    Ok(())
}

fn depth(array: &Array) -> u32 {
    match array {
        Array::Array(inner) => 1 + inner.iter().map(depth).max().unwrap_or(0),
        _ => 1,
    }
}
