//! Owns where bytes come from: the [`ByteSource`] trait and its sources for files and memory.
//! It knows nothing about GGUF.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::limits::BLOCK_BYTES_DEFAULT;

/// Bytes that can be read at any offset: a file, memory, or ranges of a remote file.
pub trait ByteSource {
    /// Total size in bytes, or `None` when it is not known. With a known size the reader can tell
    /// a truncated file from a complete one.
    ///
    /// # Errors
    /// Whatever the source meets when it asks for its size.
    fn len(&self) -> io::Result<Option<u64>>;

    /// Reads up to `buf.len()` bytes from `offset` and returns how many; 0 means the end.
    ///
    /// # Errors
    /// Whatever the source meets while reading. [`io::ErrorKind::Interrupted`] is tried again.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;

    /// How many bytes one read should ask for. Clamped to [`crate::limits::BLOCK_BYTES_RANGE`].
    fn block_bytes(&self) -> usize {
        BLOCK_BYTES_DEFAULT
    }

    /// True when the source is known to hold no bytes.
    ///
    /// # Errors
    /// As [`ByteSource::len`].
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == Some(0))
    }
}

impl<T: ByteSource + ?Sized> ByteSource for &T {
    fn len(&self) -> io::Result<Option<u64>> {
        (**self).len()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        (**self).read_at(offset, buf)
    }
    fn block_bytes(&self) -> usize {
        (**self).block_bytes()
    }
}

impl<T: ByteSource + ?Sized> ByteSource for Box<T> {
    fn len(&self) -> io::Result<Option<u64>> {
        (**self).len()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        (**self).read_at(offset, buf)
    }
    fn block_bytes(&self) -> usize {
        (**self).block_bytes()
    }
}

impl ByteSource for [u8] {
    fn len(&self) -> io::Result<Option<u64>> {
        Ok(Some(<[u8]>::len(self) as u64))
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        Ok(copy_from(self, offset, buf))
    }
}

impl ByteSource for Vec<u8> {
    fn len(&self) -> io::Result<Option<u64>> {
        ByteSource::len(self.as_slice())
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.as_slice().read_at(offset, buf)
    }
}

/// The first bytes of a larger file, for instance what an HTTP range request brought.
#[derive(Debug, Clone, Copy)]
pub struct Prefix<'a> {
    /// The bytes at hand, from offset 0.
    pub bytes: &'a [u8],
    /// Size of the whole file in bytes, where known.
    pub total: Option<u64>,
}

impl ByteSource for Prefix<'_> {
    fn len(&self) -> io::Result<Option<u64>> {
        Ok(self.total)
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        Ok(copy_from(self.bytes, offset, buf))
    }
}

fn copy_from(bytes: &[u8], offset: u64, buf: &mut [u8]) -> usize {
    let start = usize::try_from(offset)
        .unwrap_or(usize::MAX)
        .min(bytes.len());
    let n = buf.len().min(bytes.len() - start);
    buf[..n].copy_from_slice(&bytes[start..start + n]);
    n
}

/// A regular file opened for reading at offsets. It does not move a shared cursor.
#[derive(Debug)]
pub struct FileSource {
    file: File,
    len: u64,
}

impl FileSource {
    /// Opens a regular file. Anything else (a folder, a pipe, a device) is refused before it is
    /// opened, since opening or reading it could block for ever.
    ///
    /// # Errors
    /// The system's error, or [`io::ErrorKind::InvalidInput`] for what is not a regular file.
    pub fn open(path: &Path) -> io::Result<Self> {
        let meta = std::fs::metadata(path)?;
        if !meta.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            ));
        }
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        Ok(Self { file, len })
    }
}

impl ByteSource for FileSource {
    fn len(&self) -> io::Result<Option<u64>> {
        Ok(Some(self.len))
    }

    #[cfg(unix)]
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(&self.file, buf, offset)
    }

    #[cfg(windows)]
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        std::os::windows::fs::FileExt::seek_read(&self.file, buf, offset)
    }
}
