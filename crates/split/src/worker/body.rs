//! What there is of a stage: its layers, and the rows that it has passed on.

use std::sync::Arc;

use crate::layers::{Layers, LayersError};
use crate::spec::{RingId, StageSpec};
use crate::trail::{Trail, TrailRoom};
use crate::wire::CacheOp;

/// Layers with what they remember.
pub(super) struct Body {
    pub(super) layers: Box<dyn Layers>,
    pub(super) trail: Trail,
    /// The epoch whose frames it remembers.
    memory: Option<(RingId, u32)>,
}

impl Body {
    /// Layers that have seen nothing yet.
    pub(super) fn new(layers: Box<dyn Layers>, spec: &StageSpec, room: &Arc<TrailRoom>) -> Self {
        Self {
            layers,
            trail: Trail::new(Arc::clone(room), spec.width, spec.sequences),
            memory: None,
        }
    }

    /// The epoch of this ring whose frames it remembers.
    pub(super) fn remembers(&self, ring: RingId) -> Option<u32> {
        let (of, epoch) = self.memory?;
        (of == ring).then_some(epoch)
    }

    /// A frame of this epoch is about to change what it remembers.
    pub(super) fn begins(&mut self, ring: RingId, epoch: u32) {
        self.memory = Some((ring, epoch));
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.layers.clear();
        self.trail.clear();
        self.memory = None;
    }

    /// Changes what layers and trail hold.
    pub(super) fn apply(&mut self, op: CacheOp) -> Result<(), LayersError> {
        match op {
            CacheOp::Copy { from, to, tokens } => {
                self.layers.copy(from, to, tokens)?;
                self.trail.copy(from, to, tokens);
            }
            CacheOp::Cut { sequence, from } => {
                self.layers.cut(sequence, from)?;
                self.trail.cut(sequence, from);
            }
            CacheOp::Clear => {
                self.layers.clear();
                self.trail.clear();
            }
            CacheOp::Replay { .. } => {}
        }
        Ok(())
    }
}
