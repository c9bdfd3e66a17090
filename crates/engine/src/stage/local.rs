//! Parts in this process.

use super::{StageBatch, StageError, StageRunner, Stages};

/// Stages in this process, one after the other.
#[derive(Debug)]
pub struct LocalStages {
    runners: Vec<StageRunner>,
}

impl LocalStages {
    /// The stages in the order of their layers; may be none.
    #[must_use]
    pub fn new(runners: Vec<StageRunner>) -> Self {
        Self { runners }
    }
}

impl Stages for LocalStages {
    fn run(&mut self, batch: &StageBatch<'_>, hidden: &mut Vec<f32>) -> Result<(), StageError> {
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
