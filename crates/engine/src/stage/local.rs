//! Parts in this process.

use super::{StageBatch, StageError, StageRunner, Stages};

/// Stages in this process, one after the other: one call at a time.
#[derive(Debug)]
pub struct LocalStages {
    runners: Vec<StageRunner>,
    /// What the last call gave.
    hidden: Vec<f32>,
}

impl LocalStages {
    /// The stages in the order of their layers; may be none.
    #[must_use]
    pub fn new(runners: Vec<StageRunner>) -> Self {
        Self {
            runners,
            hidden: Vec::new(),
        }
    }
}

impl Stages for LocalStages {
    /// Evaluates all of it.
    fn submit(&mut self, batch: &StageBatch<'_>) -> Result<(), StageError> {
        let hidden = &mut self.hidden;
        hidden.clear();
        let mut runners = self.runners.iter_mut();
        let Some(first) = runners.next() else {
            hidden.extend_from_slice(batch.hidden);
            return Ok(());
        };
        hidden.extend_from_slice(first.run(batch)?);
        for runner in runners {
            let hidden_in = hidden.as_slice();
            let given = runner.run(&StageBatch {
                hidden: hidden_in,
                ..*batch
            })?;
            hidden.copy_from_slice(given);
        }
        Ok(())
    }

    fn receive(&mut self, hidden: &mut Vec<f32>) -> Result<(), StageError> {
        std::mem::swap(&mut self.hidden, hidden);
        Ok(())
    }

    fn copy(&mut self, from: u32, to: u32, tokens: u32) -> Result<(), StageError> {
        let mut runners = self.runners.iter_mut();
        runners.try_for_each(|runner| runner.copy(from, to, tokens))
    }

    fn cut(&mut self, sequence: u32, from: u32) -> Result<(), StageError> {
        let mut runners = self.runners.iter_mut();
        runners.try_for_each(|runner| runner.cut(sequence, from))
    }

    fn clear(&mut self) -> Result<(), StageError> {
        self.runners.iter_mut().for_each(StageRunner::clear);
        Ok(())
    }
}
