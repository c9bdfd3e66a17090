//! One running node: its models, its state, its start and stop.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]
