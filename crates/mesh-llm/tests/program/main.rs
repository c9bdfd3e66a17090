//! The program as a user meets it: the real binary, its output, its signals, its exit codes.
#![cfg(feature = "solo")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../alphabet/mod.rs"]
mod alphabet;
mod chat;
mod commands;
mod failures;
mod faults;
mod host_faults;
mod hub;
mod idle;
mod joining;
mod loss_table;
#[path = "../losses/mod.rs"]
mod losses;
mod mesh;
mod models;
mod output;
mod pace;
mod plans;
mod process;
mod rivals;
mod room;
mod serving;
mod several;
#[cfg(target_os = "linux")]
mod sockets;
mod split;
mod stop;
mod succession;
mod terminal;
