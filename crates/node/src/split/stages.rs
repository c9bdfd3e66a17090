//! The layers of other machines, as the decode thread uses them: each call goes round the ring, several at a
//! time. While there is no ring, calls wait for a moment and then give the thread back, so that it goes on
//! to look at cancelled requests and at the end.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use engine::stage::{StageBatch, StageError, Stages, Trip};
use split::layers::Rows;
use split::ring::{Memory, Replay, Ring, RingError};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::timeout;

/// How long a step waits for a ring before it gives the thread back.
const PAUSE: Duration = Duration::from_millis(100);

/// So many rings may be lost without a single step between: machines that can't reach each other are found
/// out one by one. More of them may be the rows' own fault.
const LOST_MAX: u32 = 8;

/// What the host's task tells the decode thread.
pub(super) enum Word {
    /// Go on with this.
    Ring(Box<Ring>),
    /// There will be none soon: tell those who wait.
    Down(String),
}

/// Holds the newest word until it is taken. An older one means nothing any more.
#[derive(Default)]
pub(super) struct Slot {
    word: Mutex<Option<Word>>,
    said: Notify,
}

impl Slot {
    pub(super) fn say(&self, word: Word) {
        *self.word.lock().unwrap_or_else(PoisonError::into_inner) = Some(word);
        self.said.notify_one();
    }

    /// The word that is there, if one is.
    fn look(&self) -> Option<Word> {
        self.word
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    async fn take(&self) -> Word {
        loop {
            let word = self
                .word
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            match word {
                Some(word) => return word,
                None => self.said.notified().await,
            }
        }
    }
}

/// Stands where the first layers of the model would.
pub(super) struct RemoteStages {
    runtime: Handle,
    words: Arc<Slot>,
    ring: Option<Ring>,
    /// What the machines of the last ring remember, until the present one has taken it over.
    memory: Option<Memory>,
    /// The present ring is on its way there.
    replay: Option<Replay>,
    down: Option<String>,
    /// Rings that were lost since the last step that came back.
    lost: u32,
}

impl RemoteStages {
    pub(super) fn new(runtime: Handle, words: Arc<Slot>) -> Self {
        Self {
            runtime,
            words,
            ring: None,
            memory: None,
            replay: None,
            down: None,
            lost: 0,
        }
    }

    /// Takes in what was said; waits for a ring if there is none.
    fn look(&mut self) -> Result<(), StageError> {
        if self.ring.is_some()
            && let Some(word) = self.words.look()
        {
            // Streams move: what they hold is to come along.
            match word {
                Word::Ring(ring) => {
                    self.down = None;
                    self.part();
                    self.begin(*ring);
                    return Err(StageError::Waiting);
                }
                Word::Down(text) => self.down = Some(text),
            }
        }
        while self.ring.is_none() {
            // The timer belongs to the runtime, so it is made inside.
            let waiting = async { timeout(PAUSE, self.words.take()).await };
            let word = self.runtime.block_on(waiting);
            match word {
                Ok(Word::Ring(ring)) => {
                    self.down = None;
                    self.begin(*ring);
                }
                Ok(Word::Down(text)) => self.down = Some(text),
                Err(_) => {
                    return Err(match &self.down {
                        Some(text) => StageError::Lost(text.clone()),
                        None => StageError::Waiting,
                    });
                }
            }
        }
        self.go_on()
    }

    /// The ring is no more; what it was good for stays.
    fn part(&mut self) {
        let ring = self.ring.take();
        // Before that it holds only a part.
        if self.replay.take().is_none() {
            self.memory = ring.map(Ring::into_memory);
        }
    }

    /// A ring has been raised.
    fn begin(&mut self, mut ring: Ring) {
        self.replay = self.memory.as_mut().map(|memory| ring.restore(memory));
        self.ring = Some(ring);
    }

    /// Fills stages that are new. Whoever waits looks around now and then.
    fn go_on(&mut self) -> Result<(), StageError> {
        let (Some(mut replay), Some(memory)) = (self.replay.take(), self.memory.take()) else {
            return Ok(());
        };
        let advanced = self.with(async |ring| replay.advance(ring, &memory, PAUSE).await);
        let error = match (advanced, &mut self.ring) {
            (Ok(true), Some(ring)) => {
                let (stages, rows) = (replay.filled(), replay.rows());
                tracing::info!(stages, rows, "a ring goes on where the one before stood");
                ring.adopt(replay, memory);
                // The caller is to ask what is there now.
                StageError::Waiting
            }
            (Ok(_), Some(_)) => {
                (self.replay, self.memory) = (Some(replay), Some(memory));
                StageError::Waiting
            }
            // The ring can't be filled; the caller begins anew.
            (Err(error), Some(_)) => error,
            // It is lost as well; too often, and the rows themselves may be why.
            (advanced, None) => {
                self.memory = Some(memory);
                advanced.err().unwrap_or(StageError::Waiting)
            }
        };
        Err(error)
    }

    /// Does something with the ring; a ring that is lost is let go.
    fn with<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut Ring) -> Result<T, RingError>,
    ) -> Result<T, StageError> {
        let Some(ring) = &mut self.ring else {
            return Err(StageError::Waiting);
        };
        let done = self.runtime.block_on(work(ring));
        done.map_err(|error| match error {
            RingError::NoRoom => StageError::NoRoom,
            RingError::Cut { sequence, from } => StageError::Cut { sequence, from },
            RingError::Lost(loss) => {
                self.part();
                self.lost += 1;
                match self.lost {
                    // What follows is for the host's task to say.
                    ..=LOST_MAX => StageError::Waiting,
                    _ => StageError::Lost(loss.to_string()),
                }
            }
            error @ (RingError::Input(_) | RingError::Full { .. }) => {
                StageError::Failed(error.to_string())
            }
        })
    }
}

impl Stages for RemoteStages {
    /// Without a ring one call waits for it.
    fn depth(&self) -> usize {
        self.ring.as_ref().map_or(1, Ring::depth)
    }

    fn parts(&self) -> usize {
        let workers = self.ring.as_ref().map(|ring| ring.plan().workers.len());
        workers.unwrap_or(0) + 1
    }

    fn submit(&mut self, batch: &StageBatch<'_>) -> Result<(), StageError> {
        self.look()?;
        let rows = Rows {
            hidden: batch.hidden,
            positions: batch.positions,
            sequences: batch.sequences,
        };
        self.with(async |ring| ring.submit(&rows).await)
    }

    /// Without a ring nothing is in flight any more.
    fn receive(&mut self, hidden: &mut Vec<f32>) -> Result<(), StageError> {
        let seat = self.ring.as_ref().map(Ring::seat);
        let waiting = seat.as_ref().map(|seat| seat.wait());
        let received = self.with(async |ring| ring.receive(hidden).await);
        drop(waiting);
        received?;
        self.lost = 0;
        Ok(())
    }

    fn trip(&self) -> Option<Trip> {
        Some(self.ring.as_ref()?.trip().into())
    }

    fn copy(&mut self, from: u32, to: u32, tokens: u32) -> Result<(), StageError> {
        if let Some(memory) = &mut self.memory {
            memory.copy(from, to, tokens);
            return Ok(());
        }
        match self.ring {
            Some(_) => self.with(async |ring| ring.copy(from, to, tokens).await),
            // The first one begins empty, and so does the scheduler.
            None => Ok(()),
        }
    }

    fn cut(&mut self, sequence: u32, from: u32) -> Result<(), StageError> {
        if let Some(memory) = &mut self.memory {
            memory.cut(sequence, from);
            return Ok(());
        }
        match self.ring {
            Some(_) => self.with(async |ring| ring.cut(sequence, from).await),
            None => Ok(()),
        }
    }

    fn hold(&mut self, held: &mut [u32]) -> Result<(), StageError> {
        if self.memory.is_none() && self.ring.is_some() {
            let done = self.with(async |ring| ring.hold(held).await);
            if done.is_ok() {
                return Ok(());
            }
        }
        match &mut self.memory {
            Some(memory) => memory.hold(held),
            None => held.fill(0),
        }
        Ok(())
    }

    fn clear(&mut self) -> Result<(), StageError> {
        (self.memory, self.replay) = (None, None);
        match self.ring {
            Some(_) => self.with(async |ring| ring.clear().await),
            None => Ok(()),
        }
    }
}
