//! Owns the folder of slices: complete ones, and what has come of others. It removes what was not
//! used for longest when room is short, and never a file that any process has in use.
//!
//! Use is told by locks on the files themselves, so that several processes can share a folder. Headers of whole
//! models lie beside the slices, within bounds of their own.

mod headers;

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use gguf::{Fingerprint, Model};

use super::chunk::{SliceJob, SliceKey};
use super::file_name::Kind;
use super::holding::Holding;
use super::partial::Partial;

/// A folder of slices.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
    bytes_max: u64,
}

/// A complete slice. As long as this lives, the file is not removed.
#[derive(Debug)]
pub struct CachedSlice {
    path: PathBuf,
    /// Holds the shared lock.
    _file: File,
}

/// Why the cache cannot take or give something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// The system's error.
    #[error("cannot use the cache at {}: {source}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Larger than the cache may get.
    #[error(
        "the slice has {bytes} bytes and the cache may take {bytes_max}\nhint: allow a larger cache"
    )]
    TooLarge {
        /// Bytes that are needed.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// What is there is in use.
    #[error(
        "the cache has no room for {bytes} bytes: what it holds is in use\nhint: allow a larger cache, or stop a model"
    )]
    Full {
        /// Bytes that are needed.
        bytes: u64,
    },
    /// Another process, or another task of this one, makes the same slice.
    #[error("the slice at {} is being made already\nhint: wait until it is complete", .path.display())]
    Busy {
        /// The unfinished file.
        path: PathBuf,
    },
    /// A plan that cannot be written.
    #[error(transparent)]
    Plan(#[from] gguf::WriteError),
}

impl CacheError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

impl CachedSlice {
    /// A file that is complete, and locked by whoever completed it.
    pub(crate) fn of(path: PathBuf, file: File) -> io::Result<Self> {
        // Turns the exclusive lock into a shared one.
        file.lock_shared()?;
        Ok(Self { path, _file: file })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A file in the folder, or two that belong together.
struct Entry {
    key: SliceKey,
    kind: Kind,
    bytes: u64,
    used: SystemTime,
}

impl Cache {
    /// Opens a folder, which is created if need be. `bytes_max` is how much it may hold.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn open(folder: PathBuf, bytes_max: u64) -> Result<Self, CacheError> {
        fs::create_dir_all(&folder).map_err(CacheError::io(&folder))?;
        Ok(Self { folder, bytes_max })
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn path(&self, key: &SliceKey, kind: Kind) -> PathBuf {
        self.folder.join(key.file_name(kind))
    }

    /// The slice, if it is there, and marks it as used just now.
    ///
    /// # Errors
    /// When the file is there and cannot be opened.
    pub fn lookup(&self, key: &SliceKey) -> Result<Option<CachedSlice>, CacheError> {
        let path = self.path(key, Kind::Slice);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CacheError::io(&path)(error)),
        };
        match file.try_lock_shared() {
            Ok(()) => {}
            // It is being removed.
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(CacheError::io(&path)(error)),
        }
        // Whoever removed it between opening and locking has left us a file without a name.
        if !path.exists() {
            return Ok(None);
        }
        // Fails on folders that we may only read, where nothing is removed either.
        let _ = file.set_modified(SystemTime::now());
        Ok(Some(CachedSlice { path, _file: file }))
    }

    /// The slices of a model that are complete.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn slices(&self, model: Fingerprint) -> Result<Vec<SliceKey>, CacheError> {
        let entries = self.entries()?.into_iter();
        let mut keys: Vec<_> = entries
            .filter(|e| e.kind == Kind::Slice && e.key.model == model)
            .map(|e| e.key)
            .collect();
        keys.sort_by_key(|k| (k.layers.start, k.layers.end));
        Ok(keys)
    }

    /// What is here of a model, in slices of any layers, and the files that must stay meanwhile.
    /// `model` are the headers of the whole one. Files that are no slices of it are left out.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn holding(
        &self,
        model: &Model,
    ) -> Result<(Option<Holding>, Vec<CachedSlice>), CacheError> {
        let mut all: Option<Holding> = None;
        let mut in_use = Vec::new();
        for key in self.slices(model.fingerprint())? {
            let Some(slice) = self.lookup(&key)? else {
                continue;
            };
            match (Holding::slice(model, slice.path()), &mut all) {
                (Ok(holding), Some(all)) => all.add(&holding),
                (Ok(holding), None) => all = Some(holding),
                (Err(error), _) => tracing::warn!(%error, "a slice in the cache is of no use"),
            }
            in_use.push(slice);
        }
        Ok((all, in_use))
    }

    /// Begins a slice, or goes on with one that was begun. Makes room for it first.
    pub(crate) fn begin(&self, job: &SliceJob) -> Result<Partial, CacheError> {
        let bytes = job.plan().file_bytes();
        if bytes > self.bytes_max {
            return Err(CacheError::TooLarge {
                bytes,
                bytes_max: self.bytes_max,
            });
        }
        let partial = Partial::open(self, job)?;
        let held = self.held_bytes()?;
        let needed = bytes.saturating_sub(partial.allocated_bytes());
        let over = held.saturating_add(needed).saturating_sub(self.bytes_max);
        if self.free_up(over)? < over {
            return Err(CacheError::Full { bytes });
        }
        Ok(partial)
    }

    fn held_bytes(&self) -> Result<u64, CacheError> {
        let entries = self.entries()?;
        let sum = entries.iter().map(|e| e.bytes);
        Ok(sum.fold(0, u64::saturating_add))
    }

    /// Removes what was not used for longest until so many bytes are gained, and returns how many
    /// were. Files in use stay.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn free_up(&self, bytes: u64) -> Result<u64, CacheError> {
        let mut gained = 0u64;
        if bytes == 0 {
            return Ok(0);
        }
        let mut entries = self.entries()?;
        entries.sort_by_key(|e| e.used);
        for entry in entries {
            if gained >= bytes {
                break;
            }
            if self.remove(&entry.key, entry.kind) {
                tracing::info!(slice = %entry.key.file_name(entry.kind), bytes = entry.bytes, "removed from the cache");
                gained = gained.saturating_add(entry.bytes);
            }
        }
        Ok(gained)
    }

    /// Removes a slice that is of no more use, complete or not, unless it is in use. Says whether it is gone, or was not
    /// there.
    pub fn forget(&self, key: &SliceKey) -> bool {
        let mut is_gone = true;
        for kind in [Kind::Slice, Kind::Partial] {
            let there = self.path(key, kind).try_exists();
            is_gone &= matches!(there, Ok(false)) || self.remove(key, kind);
        }
        is_gone
    }

    /// Bytes that what has come of a slice takes on disk, while it is not complete.
    #[must_use]
    pub fn partial_bytes(&self, key: &SliceKey) -> u64 {
        let meta = fs::metadata(self.path(key, Kind::Partial));
        meta.map_or(0, |meta| allocated_bytes(&meta))
    }

    /// Removes a file unless it is in use.
    fn remove(&self, key: &SliceKey, kind: Kind) -> bool {
        let path = self.path(key, kind);
        let Ok(file) = File::open(&path) else {
            return false;
        };
        if file.try_lock().is_err() {
            return false;
        }
        if kind == Kind::Partial {
            let _ = fs::remove_file(self.path(key, Kind::Journal));
        }
        fs::remove_file(&path).is_ok()
    }

    fn entries(&self) -> Result<Vec<Entry>, CacheError> {
        let folder = || CacheError::io(&self.folder);
        let mut out = Vec::new();
        for file in fs::read_dir(&self.folder).map_err(folder())? {
            let file = file.map_err(folder())?;
            let name = file.file_name();
            let Some((key, kind)) = name.to_str().and_then(SliceKey::of_file_name) else {
                continue;
            };
            // It may have gone meanwhile. Journals are small, and go with their slice.
            let Ok(meta) = file.metadata() else { continue };
            if kind == Kind::Journal || !meta.is_file() {
                continue;
            }
            out.push(Entry {
                key,
                kind,
                bytes: allocated_bytes(&meta),
                used: meta.modified().unwrap_or(SystemTime::UNIX_EPOCH),
            });
        }
        Ok(out)
    }
}

/// Bytes that a file takes on disk: a partial slice has holes.
#[cfg(unix)]
pub(crate) fn allocated_bytes(meta: &fs::Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt;
    /// Unit of `st_blocks`, whatever the file system's own blocks are.
    const BLOCK_BYTES: u64 = 512;
    meta.blocks().saturating_mul(BLOCK_BYTES)
}

/// Bytes that a file takes on disk.
#[cfg(not(unix))]
pub(crate) fn allocated_bytes(meta: &fs::Metadata) -> u64 {
    meta.len()
}
