//! What can go wrong with a part of a model.

use llama::DecodeError;

/// Why a part could not be loaded, or did not evaluate a batch.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum StageError {
    /// The file, or the machine, can't be used.
    #[error("the part of the model can't be loaded: {0}")]
    Load(String),
    /// A batch without rows, or with too many.
    #[error("{rows} rows in one call; hint: from 1 to {rows_max}")]
    Rows {
        /// Rows of the batch.
        rows: usize,
        /// Most rows of a call.
        rows_max: usize,
    },
    /// Parts of the batch do not fit together.
    #[error("{got} {what} for the rows of the batch, which need {wanted}")]
    Size {
        /// What has the wrong length.
        what: &'static str,
        /// Its length.
        got: usize,
        /// The right length.
        wanted: usize,
    },
    /// No such sequence.
    #[error("no sequence {sequence}; hint: from 0 to {}", sequences.saturating_sub(1))]
    Sequence {
        /// What was asked for.
        sequence: i64,
        /// Number of sequences.
        sequences: u32,
    },
    /// A row does not continue its sequence.
    #[error("position {got} in sequence {sequence}, which goes on at {wanted}")]
    Position {
        /// The sequence.
        sequence: i32,
        /// Position of the row.
        got: i32,
        /// Position that it should have.
        wanted: i32,
    },
    /// A token that the model does not have.
    #[error("{token} is no token of the model")]
    Token {
        /// The token.
        token: i32,
    },
    /// A hidden state holds what is no number, or infinity.
    #[error("row {row} holds a value that is not finite")]
    NotFinite {
        /// The first such row.
        row: usize,
    },
    /// No room in the KV cache; the memory is as before the call.
    #[error("no room in the KV cache")]
    NoRoom,
    /// The memory of recurrent layers can be forgotten only as a whole; nothing has changed.
    #[error("sequence {sequence} can't be cut at {from}; hint: at 0, or at its end")]
    Cut {
        /// The sequence.
        sequence: u32,
        /// Where it was to be cut.
        from: u32,
    },
    /// The token rows can't be read.
    #[error("the token embedding can't be read: {0}")]
    Embedding(String),
    /// llama.cpp's fault, or ours. The memory is not to be trusted any more.
    #[error("the evaluation failed: {0}")]
    Failed(String),
    /// The machine that has the part is gone, or breaks the protocol.
    #[error("{0}")]
    Lost(String),
}

impl From<DecodeError> for StageError {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::NoKvSlot => Self::NoRoom,
            other => Self::Failed(other.to_string()),
        }
    }
}
