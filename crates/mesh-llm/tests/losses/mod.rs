//! Models that lose machines: which one it is and what it is asked, what its answers say beside those of a run that
//! nothing disturbs, and one line of a table for each loss.
#![allow(dead_code)]

pub(crate) mod said;
mod subject;
mod table;

pub(crate) use said::{Said, pause};
pub(crate) use subject::{Phase, Subject, anew};
pub(crate) use table::Loss;
