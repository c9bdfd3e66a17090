//! The text side from outside: templates, parsers, grammars and constraints, without a model.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod constraint;
mod gbnf;
mod hostile;
mod lazy;
mod literals;
mod parser;
mod template;
mod vocabulary;
