//! Real layers: llama.cpp's stages as [`Layers`], and a [`Ring`] where the engine wants its stages.

use engine::stage::{StageBatch, StageError, StageRunner, Stages, Trip};
use futures::executor::block_on;

use crate::layers::{Layers, LayersError, Rows};
use crate::ring::{FrameTrip, Ring, RingError};

impl From<StageError> for LayersError {
    fn from(error: StageError) -> Self {
        let text = error.to_string();
        match error {
            StageError::NoRoom => Self::NoRoom,
            StageError::Rows { .. }
            | StageError::Size { .. }
            | StageError::Sequence { .. }
            | StageError::Position { .. }
            | StageError::NotFinite { .. }
            | StageError::Cut { .. } => Self::Input(text),
            _ => Self::Failed(text),
        }
    }
}

impl Layers for StageRunner {
    fn run(&mut self, rows: &Rows<'_>, out: &mut Vec<f32>) -> Result<(), LayersError> {
        let batch = StageBatch {
            hidden: rows.hidden,
            positions: rows.positions,
            sequences: rows.sequences,
        };
        out.clear();
        out.extend_from_slice(Self::run(self, &batch)?);
        Ok(())
    }

    fn copy(&mut self, from: u32, to: u32, tokens: u32) -> Result<(), LayersError> {
        Ok(Self::copy(self, from, to, tokens)?)
    }

    fn cut(&mut self, sequence: u32, from: u32) -> Result<(), LayersError> {
        Ok(Self::cut(self, sequence, from)?)
    }

    fn clear(&mut self) {
        Self::clear(self);
    }

    fn width(&self) -> u32 {
        // A model's width is a 32-bit number in its file.
        u32::try_from(Self::width(self)).unwrap_or(u32::MAX)
    }

    fn kv_tokens(&self) -> u32 {
        Self::kv_tokens(self)
    }

    fn is_recurrent(&self) -> bool {
        Self::is_recurrent(self)
    }
}

impl From<RingError> for StageError {
    fn from(error: RingError) -> Self {
        match error {
            RingError::NoRoom => Self::NoRoom,
            RingError::Cut { sequence, from } => Self::Cut { sequence, from },
            RingError::Lost(_) => Self::Lost(error.to_string()),
            RingError::Input(_) | RingError::Full { .. } => Self::Failed(error.to_string()),
        }
    }
}

impl From<FrameTrip> for Trip {
    fn from(trip: FrameTrip) -> Self {
        Self {
            total: trip.total,
            computing: trip.computing,
        }
    }
}

/// For the decode thread, which may block. Waits on channels only: deadlines are kept by tasks of the
/// runtime that raised the ring, and when that ends, so do they.
impl Stages for Ring {
    fn depth(&self) -> usize {
        Self::depth(self)
    }

    fn parts(&self) -> usize {
        self.plan().workers.len() + 1
    }

    fn submit(&mut self, batch: &StageBatch<'_>) -> Result<(), StageError> {
        let rows = Rows {
            hidden: batch.hidden,
            positions: batch.positions,
            sequences: batch.sequences,
        };
        Ok(block_on(Self::submit(self, &rows))?)
    }

    fn receive(&mut self, hidden: &mut Vec<f32>) -> Result<(), StageError> {
        Ok(block_on(Self::receive(self, hidden))?)
    }

    fn trip(&self) -> Option<Trip> {
        Some(Self::trip(self).into())
    }

    fn copy(&mut self, from: u32, to: u32, tokens: u32) -> Result<(), StageError> {
        Ok(block_on(Self::copy(self, from, to, tokens))?)
    }

    fn cut(&mut self, sequence: u32, from: u32) -> Result<(), StageError> {
        Ok(block_on(Self::cut(self, sequence, from))?)
    }

    fn clear(&mut self) -> Result<(), StageError> {
        Ok(block_on(Self::clear(self))?)
    }
}
