//! The planner from outside: what plans and refusals say, and what holds for every input.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod brute;
mod cases;
mod document;
mod header;
mod properties;
mod settled;
mod world;
