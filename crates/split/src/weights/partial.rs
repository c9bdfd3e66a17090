//! Owns a slice that is not complete: a file of full length with holes, and beside it a journal of
//! the chunks that have come. Only a complete file gets the slice's name.
//!
//! The journal is a hint. After a break every chunk it names is hashed again, because a crash can
//! leave a journal that knows more than the disk.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::PathBuf;

use gguf::limits::ALIGNMENT_MAX;
use gguf::{ByteSource, FileSource, PieceOrigin};

use super::cache::{Cache, CacheError, CachedSlice, allocated_bytes};
use super::chunk::SliceJob;
use super::file_name::Kind;
use super::holding::read_exact_at;
use super::manifest::{Hash, matches};

/// A chunk's number in the journal, in bytes.
const ENTRY_BYTES: usize = 4;

/// An unfinished slice. While it lives, nobody else works on the same one.
#[derive(Debug)]
pub(crate) struct Partial {
    path: PathBuf,
    target: PathBuf,
    journal_path: PathBuf,
    /// Holds the exclusive lock.
    file: File,
    journal: File,
}

impl Partial {
    pub(crate) fn open(cache: &Cache, job: &SliceJob) -> Result<Self, CacheError> {
        let path = cache.path(job.key(), Kind::Partial);
        let journal_path = cache.path(job.key(), Kind::Journal);
        let open = |path: &PathBuf| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            options.open(path).map_err(CacheError::io(path))
        };
        let file = open(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(CacheError::Busy { path }),
            Err(TryLockError::Error(error)) => return Err(CacheError::io(&path)(error)),
        }
        // Finished or removed between opening and locking: what we hold has no name any more.
        if !path.exists() {
            return Err(CacheError::Busy { path });
        }
        let journal = open(&journal_path)?;
        file.set_len(job.plan().file_bytes())
            .map_err(CacheError::io(&path))?;
        Ok(Self {
            target: cache.path(job.key(), Kind::Slice),
            path,
            journal_path,
            file,
            journal,
        })
    }

    /// Bytes that it takes on disk now.
    pub(crate) fn allocated_bytes(&self) -> u64 {
        self.file
            .metadata()
            .map_or(0, |meta| allocated_bytes(&meta))
    }

    /// For each chunk whether it is there, by its hash, and cleans the journal. Blocks.
    pub(crate) fn resume(
        &mut self,
        job: &SliceJob,
        hashes: &[Hash],
    ) -> Result<Vec<bool>, CacheError> {
        let named = self.read_journal(job.chunks().len())?;
        let source = FileSource::open(&self.path).map_err(CacheError::io(&self.path))?;
        let mut done = vec![false; job.chunks().len()];
        let mut buffer = Vec::new();
        for (i, chunk) in job.chunks().iter().enumerate().filter(|(i, _)| named[*i]) {
            buffer.resize(chunk.len() as usize, 0);
            let read = read_exact_at(&source, chunk.target, &mut buffer);
            done[i] = read.is_ok() && matches(&hashes[i], &buffer);
        }
        let kept: Vec<_> = (0..done.len()).filter(|&i| done[i]).collect();
        let failed = || CacheError::io(&self.journal_path);
        self.journal.set_len(0).map_err(failed())?;
        self.journal.seek(SeekFrom::Start(0)).map_err(failed())?;
        self.write_journal(&kept).map_err(failed())?;
        Ok(done)
    }

    fn read_journal(&mut self, chunks: usize) -> Result<Vec<bool>, CacheError> {
        let failed = || CacheError::io(&self.journal_path);
        let mut bytes = Vec::new();
        self.journal.seek(SeekFrom::Start(0)).map_err(failed())?;
        // Each chunk is written once, so that more is of no use.
        let limit = (chunks * ENTRY_BYTES) as u64;
        let mut journal = (&self.journal).take(limit);
        journal.read_to_end(&mut bytes).map_err(failed())?;
        let mut named = vec![false; chunks];
        for entry in bytes.as_chunks::<ENTRY_BYTES>().0 {
            if let Some(named) = named.get_mut(u32::from_le_bytes(*entry) as usize) {
                *named = true;
            }
        }
        Ok(named)
    }

    fn write_journal(&self, chunks: &[usize]) -> io::Result<()> {
        let entries = chunks.iter().flat_map(|&i| (i as u32).to_le_bytes());
        (&self.journal).write_all(&entries.collect::<Vec<_>>())
    }

    /// Writes a chunk that was checked. Blocks.
    pub(crate) fn write(
        &self,
        job: &SliceJob,
        index: usize,
        bytes: &[u8],
    ) -> Result<(), CacheError> {
        write_all_at(&self.file, bytes, job.chunks()[index].target)
            .and_then(|()| self.write_journal(&[index]))
            .map_err(CacheError::io(&self.path))
    }

    /// Writes what is no chunk, and gives the complete file its name. Blocks.
    pub(crate) fn finish(&self, cache: &Cache, job: &SliceJob) -> Result<CachedSlice, CacheError> {
        let header = job.plan().header()?;
        self.complete(job, &header)
            .map_err(CacheError::io(&self.path))?;
        fs::rename(&self.path, &self.target).map_err(CacheError::io(&self.target))?;
        // The new name must survive a crash as well as the bytes.
        if let Ok(folder) = File::open(cache.folder()) {
            let _ = folder.sync_all();
        }
        let _ = fs::remove_file(&self.journal_path);
        // A copy of the handle, because tasks may still hold this one; the lock is both's.
        let file = self.file.try_clone();
        file.and_then(|file| CachedSlice::of(self.target.clone(), file))
            .map_err(CacheError::io(&self.target))
    }

    /// Takes all chunks out of the whole model's files, unchecked: they are this machine's own.
    /// `progress` is told the bytes done. Blocks.
    pub(crate) fn cut<S: ByteSource>(
        &self,
        job: &SliceJob,
        sources: &[S],
        mut progress: impl FnMut(u64) -> bool,
    ) -> Result<bool, CacheError> {
        let mut buffer = Vec::new();
        let mut done = 0u64;
        for chunk in job.chunks() {
            buffer.resize(chunk.len() as usize, 0);
            let source = sources.get(chunk.origin.part);
            source
                .ok_or_else(|| io::ErrorKind::NotFound.into())
                .and_then(|s| read_exact_at(s, chunk.origin.bytes.start, &mut buffer))
                .and_then(|()| write_all_at(&self.file, &buffer, chunk.target))
                .map_err(CacheError::io(&self.path))?;
            done += u64::from(chunk.len());
            if !progress(done) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn complete(&self, job: &SliceJob, header: &[u8]) -> io::Result<()> {
        write_all_at(&self.file, header, 0)?;
        let mut end = header.len() as u64;
        for piece in job.plan().pieces() {
            // A partial slice may have been begun from headers with another order of tensors.
            self.zero(end..piece.target.start)?;
            end = piece.target.end;
            let number = match piece.origin {
                PieceOrigin::Ones => 1.0f32,
                PieceOrigin::Zeros => 0.0,
                // Chunks, which are there.
                _ => continue,
            };
            // A made-up tensor has one row of the width, 4 MiB at most.
            let elements = (piece.target.end - piece.target.start) / size_of::<f32>() as u64;
            let bytes = number.to_le_bytes().repeat(elements as usize);
            write_all_at(&self.file, &bytes, piece.target.start)?;
        }
        self.zero(end..job.plan().file_bytes())?;
        self.file.sync_all()
    }

    /// Fills a gap between two tensors: less than the alignment, 2 MiB.
    fn zero(&self, gap: Range<u64>) -> io::Result<()> {
        let len = gap.end.saturating_sub(gap.start).min(ALIGNMENT_MAX.into());
        write_all_at(&self.file, &vec![0; len as usize], gap.start)
    }
}

#[cfg(unix)]
fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(windows)]
fn write_all_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let n = std::os::windows::fs::FileExt::seek_write(file, bytes, offset)?;
        if n == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[n..];
        offset += n as u64;
    }
    Ok(())
}
