//! Owns reading little-endian values in order from a [`ByteSource`], block by block.
//! It never asks for more than one block past what was needed, nor holds more than one.

use std::io;

use crate::error::ReadError;
use crate::limits::{BLOCK_BYTES_RANGE, HEADER_BYTES_MAX};
use crate::source::ByteSource;

pub(crate) struct Blocks<'s, S: ?Sized> {
    source: &'s S,
    /// Size of the source in bytes, where known.
    pub(crate) len: Option<u64>,
    block: Vec<u8>,
    /// Offset in the source of the block's first byte.
    block_at: u64,
    /// Next byte to hand out, from the block's start.
    next: usize,
}

impl<'s, S: ByteSource + ?Sized> Blocks<'s, S> {
    pub(crate) fn new(source: &'s S) -> Result<Self, ReadError> {
        Ok(Self {
            source,
            len: source.len()?,
            block: Vec::new(),
            block_at: 0,
            next: 0,
        })
    }

    /// Offset of the next byte from the start of the source.
    pub(crate) fn position(&self) -> u64 {
        self.block_at + self.next as u64
    }

    /// Bytes that can still follow, at most: bounded by the file's size and the header's maximum.
    pub(crate) fn remaining_max(&self) -> u64 {
        self.len
            .unwrap_or(u64::MAX)
            .min(HEADER_BYTES_MAX)
            .saturating_sub(self.position())
    }

    /// Fills `out`, or says that the file ends in the middle of `what`.
    pub(crate) fn fill(
        &mut self,
        out: &mut [u8],
        what: &dyn Fn() -> String,
    ) -> Result<(), ReadError> {
        let mut done = 0;
        while done < out.len() {
            if self.next == self.block.len() {
                self.load(what)?;
            }
            let n = (out.len() - done).min(self.block.len() - self.next);
            out[done..done + n].copy_from_slice(&self.block[self.next..self.next + n]);
            self.next += n;
            done += n;
        }
        Ok(())
    }

    fn load(&mut self, what: &dyn Fn() -> String) -> Result<(), ReadError> {
        let at = self.position();
        if at >= HEADER_BYTES_MAX {
            return Err(ReadError::TooMany {
                what: "the header's size".into(),
                found: at + 1,
                max: HEADER_BYTES_MAX,
            });
        }
        let wish = self
            .source
            .block_bytes()
            .clamp(*BLOCK_BYTES_RANGE.start(), *BLOCK_BYTES_RANGE.end());
        let left = self
            .len
            .map_or(u64::MAX, |len| len.saturating_sub(at))
            .min(HEADER_BYTES_MAX - at);
        let size = usize::try_from(left).map_or(wish, |left| wish.min(left));
        self.block.resize(size, 0);
        self.block_at = at;
        self.next = 0;
        let got = if size == 0 {
            0
        } else {
            read_once(self.source, at, &mut self.block)?
        };
        self.block.truncate(got);
        if got == 0 {
            return Err(ReadError::TruncatedHeader { at, what: what() });
        }
        Ok(())
    }

    pub(crate) fn array<const N: usize>(
        &mut self,
        what: &dyn Fn() -> String,
    ) -> Result<[u8; N], ReadError> {
        let mut out = [0; N];
        self.fill(&mut out, what)?;
        Ok(out)
    }

    pub(crate) fn u32(&mut self, what: &dyn Fn() -> String) -> Result<u32, ReadError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, what: &dyn Fn() -> String) -> Result<u64, ReadError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A string's bytes: length (u64), then the bytes. Refused over `max` before it is read.
    pub(crate) fn bytes(
        &mut self,
        max: u64,
        what: &dyn Fn() -> String,
    ) -> Result<Vec<u8>, ReadError> {
        let len = self.u64(what)?;
        let len = self.check_len(len, 1, max, what)?;
        let mut out = vec![0; len];
        self.fill(&mut out, what)?;
        Ok(out)
    }

    /// A string that must be UTF-8.
    pub(crate) fn text(
        &mut self,
        max: u64,
        what: &dyn Fn() -> String,
    ) -> Result<String, ReadError> {
        String::from_utf8(self.bytes(max, what)?)
            .map_err(|_| ReadError::invalid(what(), "is not UTF-8"))
    }

    /// Refuses a count of things over `max`, or more than the file can still hold at
    /// `bytes_each` bytes.
    pub(crate) fn check_len(
        &self,
        count: u64,
        bytes_each: u64,
        max: u64,
        what: &dyn Fn() -> String,
    ) -> Result<usize, ReadError> {
        if count > max {
            return Err(ReadError::TooMany {
                what: format!("the length of {}", what()),
                found: count,
                max,
            });
        }
        // Both factors are under 2^32, so this cannot overflow.
        if count * bytes_each > self.remaining_max() {
            return Err(match self.len {
                Some(len) if len <= HEADER_BYTES_MAX => ReadError::TruncatedHeader {
                    at: len,
                    what: what(),
                },
                _ => ReadError::TooMany {
                    what: "the header's size".into(),
                    found: self.position() + count * bytes_each,
                    max: HEADER_BYTES_MAX,
                },
            });
        }
        Ok(count as usize)
    }
}

/// One read, tried again as often as a signal interrupts it (each try asks the system anew, so
/// only a stream of signals could keep it here; 100 in a row is an error).
pub(crate) fn read_once<S: ByteSource + ?Sized>(
    source: &S,
    at: u64,
    buf: &mut [u8],
) -> io::Result<usize> {
    const TRIES_MAX: u32 = 100;
    for _ in 0..TRIES_MAX {
        match source.read_at(at, buf) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            // A source that claims more than the buffer holds is broken; do not trust its count.
            other => return other.map(|n| n.min(buf.len())),
        }
    }
    Err(io::Error::new(
        io::ErrorKind::Interrupted,
        "interrupted again and again",
    ))
}
