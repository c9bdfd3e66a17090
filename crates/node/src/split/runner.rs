//! A part of a model on llama.cpp, as the stage protocol uses it.

use engine::stage::{StageBatch, StageError, StageRunner};
use split::layers::{Layers, LayersError, Rows};
use split::weights::CachedSlice;

/// The part.
pub(super) struct Runner {
    pub(super) runner: StageRunner,
    /// Its file stays in the cache as long as it is mapped.
    pub(super) _slice: CachedSlice,
}

fn error(error: StageError) -> LayersError {
    match error {
        StageError::NoRoom => LayersError::NoRoom,
        // Found before anything was evaluated.
        StageError::Rows { .. }
        | StageError::Size { .. }
        | StageError::Sequence { .. }
        | StageError::Position { .. }
        | StageError::NotFinite { .. }
        | StageError::Cut { .. } => LayersError::Input(error.to_string()),
        other => LayersError::Failed(other.to_string()),
    }
}

impl Layers for Runner {
    fn run(&mut self, rows: &Rows<'_>, out: &mut Vec<f32>) -> Result<(), LayersError> {
        let batch = StageBatch {
            hidden: rows.hidden,
            positions: rows.positions,
            sequences: rows.sequences,
        };
        let hidden = self.runner.run(&batch).map_err(error)?;
        out.clear();
        out.extend_from_slice(hidden);
        Ok(())
    }

    fn copy(&mut self, from: u32, to: u32, tokens: u32) -> Result<(), LayersError> {
        self.runner.copy(from, to, tokens).map_err(error)
    }

    fn cut(&mut self, sequence: u32, from: u32) -> Result<(), LayersError> {
        self.runner.cut(sequence, from).map_err(error)
    }

    fn clear(&mut self) {
        self.runner.clear();
    }

    fn width(&self) -> u32 {
        u32::try_from(self.runner.width()).unwrap_or(u32::MAX)
    }

    fn kv_tokens(&self) -> u32 {
        self.runner.kv_tokens()
    }

    fn is_recurrent(&self) -> bool {
        self.runner.is_recurrent()
    }
}
