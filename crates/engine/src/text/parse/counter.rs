//! Numbers the calls of an answer and gives them identifiers.

use crate::ToolCallDelta;

use super::{Piece, calls};

/// Numbers the calls of an answer and gives them identifiers.
#[derive(Debug, Clone)]
pub(super) struct CallCounter {
    begun: u32,
    parallel: bool,
}

impl CallCounter {
    pub(super) fn new(parallel: bool) -> Self {
        Self { begun: 0, parallel }
    }

    pub(super) fn any(&self) -> bool {
        self.begun > 0
    }

    /// Index of a new call.
    pub(super) fn begin(&mut self) -> u32 {
        self.begun += 1;
        self.begun - 1
    }

    /// Passes a part of a call on, unless it is of a call beyond the one allowed.
    pub(super) fn emit(&mut self, delta: calls::Delta, out: &mut Vec<Piece>) {
        let index = if delta.index_in_answer == calls::NEXT {
            match delta.name {
                Some(_) => self.begin(),
                None => self.begun.saturating_sub(1),
            }
        } else {
            delta.index_in_answer
        };
        if index > 0 && !self.parallel {
            if let Some(name) = &delta.name {
                tracing::debug!(name, "dropped a further tool call: parallel calls are off");
            }
            return;
        }
        let id = delta
            .name
            .as_ref()
            .map(|_| delta.id.unwrap_or_else(calls::new_id));
        if id.is_none() && delta.arguments.is_empty() {
            return;
        }
        out.push(Piece::ToolCall(ToolCallDelta {
            index,
            id,
            name: delta.name,
            arguments: delta.arguments,
        }));
    }
}
