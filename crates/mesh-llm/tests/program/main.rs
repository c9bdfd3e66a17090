//! The program as a user meets it: the real binary, its output, its signals, its exit codes.
#![cfg(feature = "solo")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod chat;
mod commands;
mod failures;
mod idle;
mod mesh;
mod models;
mod output;
mod plans;
mod process;
mod serving;
mod several;
mod split;
mod stop;
