//! A part of a model with its context: what stages and tail have in common. It trusts no batch.

use std::path::Path;

use gguf::{SliceOrigin, SliceRole};
use llama::{Batch, Context, ContextParams, KvType, LayerHook, Token};

use super::{StageBatch, StageError, StageMemory, StageOptions, architecture};
use crate::local::load::{self, LoadOptions, ModelSource};

/// Stands for every row: llama.cpp wants tokens, and every vocabulary has this one. What it stands
/// for is overwritten with the row's hidden state.
const TOKEN: Token = 0;

#[derive(Debug)]
pub(super) struct Part {
    pub(super) context: Context,
    memory: StageMemory,
    origin: SliceOrigin,
    width: usize,
    sequences: u32,
    rows_max: usize,
    /// Kept between calls, as is the next.
    batch: Batch,
    /// Next position of each sequence while a batch is checked.
    next: Vec<Option<i32>>,
}

impl Part {
    pub(super) fn open(
        path: &Path,
        options: &StageOptions,
        role: SliceRole,
    ) -> Result<Self, StageError> {
        let load = |e: &dyn std::fmt::Display| StageError::Load(e.to_string());
        let gguf = gguf::Model::open(path).map_err(|e| load(&e))?;
        let architecture = architecture(&gguf).map_err(|e| load(&e))?;
        let origin = SliceOrigin::of(gguf.metadata()).map_err(|e| load(&e))?;
        let origin = origin.ok_or_else(|| load(&"the file is no slice of a model"))?;
        if origin.role != role {
            let found = origin.role;
            return Err(load(&format!("the file is a {found} and not a {role}")));
        }
        let memory = StageMemory::of(&gguf, options)?;
        let source = ModelSource::Path(path.to_path_buf());
        let weights = LoadOptions {
            gpu_layers: options.gpu_layers,
            device: options.device.clone(),
            ..LoadOptions::new(source.clone())
        };
        let model =
            load::load_weights(&source, &gguf, &weights, &mut |_| {}).map_err(|e| load(&e))?;
        let hook = LayerHook {
            outputs: match role {
                SliceRole::Stage => vec![LayerHook::last_layer(model.layers())],
                SliceRole::Tail | SliceRole::Whole => Vec::new(),
            },
            input: architecture.input_node.to_owned(),
        };
        let params = ContextParams {
            kv_tokens: options.kv_tokens.max(1),
            batch_tokens_max: options.rows_max.max(1),
            // Rows that give nothing are dropped in the last layer, so in a stage all give something.
            outputs_max: match role {
                SliceRole::Stage => options.rows_max,
                SliceRole::Tail | SliceRole::Whole => options.outputs_max.min(options.rows_max),
            }
            .max(1),
            sequences_max: options.sequences.clamp(1, load::SLOTS_MAX),
            threads: options.threads.unwrap_or_else(load::threads_default).max(1),
            poll: load::POLL,
            kv_type: KvType::F16,
            embeddings: false,
        };
        let (sequences, rows_max) = (params.sequences_max, params.batch_tokens_max as usize);
        let context = Context::with_layer_hook(&model, params, &hook).map_err(|e| load(&e))?;
        Ok(Self {
            context,
            memory,
            origin,
            width: model.embedding_width() as usize,
            sequences,
            rows_max,
            batch: Batch::new(),
            next: Vec::new(),
        })
    }

    pub(super) fn memory(&self) -> StageMemory {
        self.memory
    }

    pub(super) fn origin(&self) -> &SliceOrigin {
        &self.origin
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }

    pub(super) fn sequences(&self) -> u32 {
        self.sequences
    }

    pub(super) fn rows_max(&self) -> usize {
        self.rows_max
    }

    /// Evaluates a batch; `outputs`: which rows give logits, `None` for all.
    pub(super) fn evaluate(
        &mut self,
        batch: &StageBatch<'_>,
        outputs: Option<&[bool]>,
    ) -> Result<(), StageError> {
        self.check(batch)?;
        self.batch.clear();
        for (row, (&position, &sequence)) in batch.positions.iter().zip(batch.sequences).enumerate()
        {
            let output = outputs.is_none_or(|outputs| outputs[row]);
            self.batch.push(TOKEN, position, sequence, output);
        }
        self.context.decode_hidden(&mut self.batch, batch.hidden)?;
        Ok(())
    }

    fn check(&mut self, batch: &StageBatch<'_>) -> Result<(), StageError> {
        let (rows, rows_max) = (batch.len(), self.rows_max);
        if rows == 0 || rows > rows_max {
            return Err(StageError::Rows { rows, rows_max });
        }
        let size = |what, got, wanted| match got == wanted {
            true => Ok(()),
            false => Err(StageError::Size { what, got, wanted }),
        };
        size("sequences", batch.sequences.len(), rows)?;
        size("values", batch.hidden.len(), rows * self.width)?;
        self.next.clear();
        self.next.resize(self.sequences as usize, None);
        for (&sequence, &got) in batch.sequences.iter().zip(batch.positions) {
            self.sequence(sequence)?;
            let next = &mut self.next[sequence as usize];
            let wanted = next.unwrap_or_else(|| {
                let last = self.context.sequence_last(sequence);
                last.map_or(0, |last| last.saturating_add(1))
            });
            if got != wanted {
                return Err(StageError::Position {
                    sequence,
                    got,
                    wanted,
                });
            }
            *next = Some(wanted.saturating_add(1));
        }
        match batch.hidden.iter().position(|v| !v.is_finite()) {
            Some(index) => Err(StageError::NotFinite {
                row: index / self.width,
            }),
            None => Ok(()),
        }
    }

    /// The sequence, if there is one of that number.
    pub(super) fn sequence<N: Into<i64>>(&self, sequence: N) -> Result<i32, StageError> {
        let sequence = sequence.into();
        let found = i32::try_from(sequence).ok();
        found
            .filter(|s| u32::try_from(*s).is_ok_and(|s| s < self.sequences))
            .ok_or(StageError::Sequence {
                sequence,
                sequences: self.sequences,
            })
    }

    pub(super) fn copy(&mut self, from: u32, to: u32, tokens: u32) -> Result<(), StageError> {
        let (source, target) = (self.sequence(from)?, self.sequence(to)?);
        if source == target {
            return Ok(());
        }
        // llama.cpp wants an empty target; forgetting all of a sequence never fails.
        self.context.sequence_remove(target, 0, None);
        let tokens = i32::try_from(tokens).unwrap_or(i32::MAX);
        self.context.sequence_copy(source, target, tokens);
        Ok(())
    }

    pub(super) fn cut(&mut self, sequence: u32, from: u32) -> Result<(), StageError> {
        let id = self.sequence(sequence)?;
        let position = i32::try_from(from).unwrap_or(i32::MAX);
        match self.context.sequence_remove(id, position, None) {
            true => Ok(()),
            false => Err(StageError::Cut { sequence, from }),
        }
    }
}
