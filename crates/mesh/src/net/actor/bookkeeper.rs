//! Owns the writing of the book of invitations, beside the actor: a slow disk holds up who waits for
//! it, and nobody else. Knows nothing of what is in the book.

use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio_util::task::AbortOnDropHandle;

use super::MeshError;
use crate::admission::Invitations;
use crate::identity::MeshFiles;

/// Books that wait to be written. More waiters than the actor lets join in a second, several times.
const ENTRIES_MAX: usize = 256;

/// A book, and who waits until it is on disk.
struct Entry {
    book: Invitations,
    kept: oneshot::Sender<Result<(), String>>,
}

/// Writes books in the order in which they came; of those that wait only the last, which holds
/// everything that the others do.
pub(super) struct Bookkeeper {
    entries: Option<mpsc::Sender<Entry>>,
    _task: Option<AbortOnDropHandle<()>>,
}

/// A book that is being written.
pub(super) struct Keeping(Option<oneshot::Receiver<Result<(), String>>>);

impl Bookkeeper {
    /// Writes to `files`; without any, everything is kept at once.
    pub(super) fn new(files: Option<MeshFiles>) -> Self {
        let Some(files) = files else {
            return Self {
                entries: None,
                _task: None,
            };
        };
        let (entries, receiver) = mpsc::channel(ENTRIES_MAX);
        Self {
            entries: Some(entries),
            _task: Some(AbortOnDropHandle::new(tokio::spawn(keep(files, receiver)))),
        }
    }

    /// Has a book written. Does not wait, except for room in the queue.
    pub(super) async fn keep(&self, book: Invitations) -> Keeping {
        let Some(entries) = &self.entries else {
            return Keeping(None);
        };
        let (kept, keeping) = oneshot::channel();
        // If the task is gone, `keeping` says so.
        let _ = entries.send(Entry { book, kept }).await;
        Keeping(Some(keeping))
    }
}

impl Keeping {
    /// Nothing has changed.
    pub(super) const fn nothing() -> Self {
        Self(None)
    }

    /// Waits until it is on disk.
    pub(super) async fn done(self) -> Result<(), MeshError> {
        match self.0 {
            None => Ok(()),
            Some(keeping) => match keeping.await {
                Ok(kept) => kept.map_err(MeshError::NotKept),
                Err(_) => Err(MeshError::Stopped),
            },
        }
    }
}

async fn keep(files: MeshFiles, mut entries: mpsc::Receiver<Entry>) {
    let mut batch = Vec::new();
    while entries.recv_many(&mut batch, ENTRIES_MAX).await > 0 {
        let Some(last) = batch.last() else { continue };
        let (files, book) = (files.clone(), last.book.clone());
        let kept = spawn_blocking(move || files.set_invitations(&book)).await;
        let kept = match kept {
            Ok(stored) => stored.map_err(|error| error.to_string()),
            Err(_) => Err("the program stops".to_owned()),
        };
        for entry in batch.drain(..) {
            // Fails only if nobody waits any more.
            let _ = entry.kept.send(kept.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MeshId;
    use crate::identity::StateDir;

    #[tokio::test]
    async fn a_book_is_on_disk_before_it_counts_as_kept() {
        let home = tempfile::tempdir().unwrap();
        let files = StateDir::new(home.path()).mesh(MeshId::from_bytes([1; 32]));
        let keeper = Bookkeeper::new(Some(files.clone()));
        let book = Invitations::default();
        keeper.keep(book.clone()).await.done().await.unwrap();
        assert_eq!(files.invitations().unwrap(), book);
        // A file where the folder should be.
        let blocked = home.path().join("blocked");
        std::fs::write(&blocked, "").unwrap();
        let files = StateDir::new(&blocked).mesh(MeshId::from_bytes([1; 32]));
        let keeper = Bookkeeper::new(Some(files));
        let kept = keeper.keep(book).await.done().await;
        assert!(matches!(kept, Err(MeshError::NotKept(_))), "{kept:?}");
    }
}
