//! llama.cpp's grammar notation GBNF, followed byte by byte.
//!
//! Owns reading the notation ([`Automaton::new`]) and a pushdown automaton over it. The notation
//! has no lexer: every character may belong to several rules at once, so the state is a set of
//! stacks, as in llama.cpp. Sets that were seen are kept with their transitions, so that walking
//! a large vocabulary costs a table look-up per byte.

mod automaton;
mod state;
mod syntax;

pub use automaton::Automaton;
pub use state::{State, TooComplex};

use thiserror::Error as ThisError;

/// What is wrong with a grammar, and where.
#[derive(Debug, Clone, PartialEq, Eq, ThisError)]
#[error("{line}:{column}: {reason}")]
pub struct GbnfError {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub reason: String,
}
