//! What a worker computes with. The protocol does not care what is behind it: tests put arithmetic
//! there, `solo` puts llama.cpp.

use gguf::Fingerprint;
use mesh::NodeId;

use crate::fault::Refusal;
use crate::spec::StageSpec;
use crate::weights::Phase;
use crate::wire::Pace;

/// Rows of one call.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// The rows one after the other, each of the model's width.
    pub hidden: &'a [f32],
    /// Position of each row in its sequence.
    pub positions: &'a [i32],
    /// Sequence of each row.
    pub sequences: &'a [i32],
}

/// Why layers did not evaluate rows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayersError {
    /// The KV cache is full and as it was before the call.
    #[error("no room in the KV cache")]
    NoRoom,
    /// Whoever sent the rows is wrong. Nothing was evaluated.
    #[error("{0}")]
    Input(String),
    /// The evaluation failed, and the KV cache is not to be trusted any more.
    #[error("{0}")]
    Failed(String),
}

/// Consecutive layers with the KV cache that belongs to them. Calls block while they compute, and
/// come from one thread at a time, but not always the same.
pub trait Layers: Send {
    /// Replaces `out` by what the layers make of the rows: as many rows, in the same order.
    ///
    /// # Errors
    /// [`LayersError`].
    fn run(&mut self, rows: &Rows<'_>, out: &mut Vec<f32>) -> Result<(), LayersError>;

    /// Makes the first `tokens` positions of `from` also those of `to`, which forgets what it had.
    ///
    /// # Errors
    /// [`LayersError`].
    fn copy(&mut self, from: u32, to: u32, tokens: u32) -> Result<(), LayersError>;

    /// Forgets a sequence from position `from` on.
    ///
    /// # Errors
    /// [`LayersError`].
    fn cut(&mut self, sequence: u32, from: u32) -> Result<(), LayersError>;

    /// Forgets all sequences.
    fn clear(&mut self);

    /// Elements of a row.
    fn width(&self) -> u32;

    /// KV cells.
    fn kv_tokens(&self) -> u32;

    /// Whether sequences can't be cut back.
    fn is_recurrent(&self) -> bool;
}

/// How far a machine is with its layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loading {
    /// What it does for them.
    pub phase: Phase,
    /// Thousandths of it that are done, at most 1,000.
    pub permille: u16,
}

impl Loading {
    /// `done` of `total`, whatever they count.
    #[must_use]
    pub fn of(phase: Phase, done: u64, total: u64) -> Self {
        let permille = done.min(total).saturating_mul(1_000) / total.max(1);
        Self {
            phase,
            permille: u16::try_from(permille).unwrap_or(1_000).min(1_000),
        }
    }
}

impl Default for Loading {
    fn default() -> Self {
        Self::of(Phase::Opening, 0, 1)
    }
}

/// Where a worker gets layers from. Both calls block: they are made on threads for that.
pub trait LayerSource: Send + Sync + 'static {
    /// Bytes that a stage takes once it is loaded, found out without loading it. `host` asks for it.
    ///
    /// # Errors
    /// Why this machine can't have these layers.
    fn needed_bytes(&self, host: NodeId, spec: &StageSpec) -> Result<u64, Refusal>;

    /// Loads a stage. `progress` is told now and then how far it is; when it says false, nobody wants
    /// the stage any more.
    ///
    /// # Errors
    /// What went wrong.
    fn load(
        &self,
        host: NodeId,
        spec: &StageSpec,
        progress: &mut dyn FnMut(Loading) -> bool,
    ) -> Result<Box<dyn Layers>, String>;

    /// How fast this machine computes a model, if it knows or can find out within some minutes. `host` has the model.
    /// `is_free` is asked whether it may be found out, before something is fetched or run and now and then meanwhile:
    /// stages that compute here must not be disturbed.
    fn pace(&self, host: NodeId, model: Fingerprint, is_free: &dyn Fn() -> bool) -> Option<Pace> {
        let _ = (host, model, is_free);
        None
    }
}
