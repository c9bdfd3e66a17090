//! Owns the errors of slicing.

use std::ops::Range;

use super::table::SplitArchitecture;
use crate::error::{KeyError, ReadError, WriteError};

/// Most cuts that a message lists, so that a model of 500 layers does not fill the screen.
const CUTS_SHOWN: usize = 24;

/// Why a model could not be sliced.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SliceError {
    /// The architecture is not in the table.
    #[error(
        "models of architecture {name:?} cannot be split\nhint: run it whole on one machine; these can be split: {}",
        supported()
    )]
    Architecture {
        /// What the file says.
        name: String,
    },
    /// This model of a supported architecture is one that llama.cpp cannot run in pieces.
    #[error("this {architecture} model cannot be split: {why}\nhint: run it whole on one machine")]
    Variant {
        /// Its architecture.
        architecture: &'static str,
        /// What stands against it.
        why: String,
    },
    /// The file is a slice already.
    #[error(
        "this file is itself a slice of a model\nhint: cut the slice you need out of the whole model"
    )]
    AlreadySliced,
    /// No layers, or some that the model does not have.
    #[error("layers {}..{} are not a part of the model's {layers} layers", .range.start, .range.end)]
    Range {
        /// What was asked for.
        range: Range<u32>,
        /// Layers of the model.
        layers: u32,
    },
    /// A cut inside a group of layers that belong together.
    #[error("a {architecture} model cannot be cut before layer {at}\nhint: {}", legal_cuts(.legal))]
    Cut {
        /// Its architecture.
        architecture: &'static str,
        /// First layer behind the cut.
        at: u32,
        /// First layers behind every legal cut.
        legal: Vec<u32>,
    },
    /// A slice of a length that llama.cpp takes for another variant of the architecture.
    #[error(
        "a slice of {layers} layers of this {architecture} model would be computed wrongly: {why}\nhint: make the slice longer or shorter by one cut"
    )]
    Length {
        /// Its architecture.
        architecture: &'static str,
        /// Layers of the slice.
        layers: u32,
        /// What goes wrong.
        why: &'static str,
    },
    /// A tail that does not reach the last layer.
    #[error(
        "the tail must end with the model's last layer: it ends before layer {end} of {layers}"
    )]
    Tail {
        /// Where it ends.
        end: u32,
        /// Layers of the model.
        layers: u32,
    },
    /// A tensor that no slice can hold, or one that is missing.
    #[error("tensor {name:?} {why}")]
    Tensor {
        /// Its name.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// Sources that cannot be those of the plan.
    #[error("the slice is cut from {wanted} files and {found} were given")]
    Sources {
        /// Files of the model.
        wanted: usize,
        /// Files that were given.
        found: usize,
    },
    /// Whoever watched the progress asked to stop.
    #[error("stopped before the slice was complete")]
    Stopped,
    /// Metadata that do not make sense.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The model could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The slice could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

fn supported() -> String {
    let names: Vec<_> = SplitArchitecture::all().iter().map(|a| a.name).collect();
    names.join(", ")
}

fn legal_cuts(legal: &[u32]) -> String {
    if legal.is_empty() {
        return "this model has no place to cut; run it whole on one machine".to_owned();
    }
    let shown: Vec<_> = legal.iter().take(CUTS_SHOWN).map(u32::to_string).collect();
    let more = if legal.len() > CUTS_SHOWN {
        ", and so on"
    } else {
        ""
    };
    format!("cut before layer {}{more}", shown.join(", "))
}
