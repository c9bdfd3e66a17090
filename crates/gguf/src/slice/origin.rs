//! Owns the keys in which a slice says of which model it is, and of which layers.

use std::ops::Range;

use super::SliceRole;
use crate::error::KeyError;
use crate::fingerprint::Fingerprint;
use crate::limits::LAYERS_MAX;
use crate::metadata::Metadata;

/// Fingerprint of the whole model, in hexadecimal digits.
const KEY_MODEL: &str = "mesh_llm.slice.model";
/// First layer of the slice, counted from 0 in the whole model.
const KEY_FIRST: &str = "mesh_llm.slice.first_layer";
/// Layer behind the last one.
const KEY_END: &str = "mesh_llm.slice.end_layer";
/// Layers of the whole model.
const KEY_LAYERS: &str = "mesh_llm.slice.model_layers";
/// `stage` or `tail`.
const KEY_ROLE: &str = "mesh_llm.slice.role";

/// Where a slice comes from. Stands in its metadata; llama.cpp ignores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceOrigin {
    /// Fingerprint of the whole model.
    pub model: Fingerprint,
    /// Layers of the slice, counted from 0 in the whole model.
    pub layers: Range<u32>,
    /// Layers of the whole model.
    pub model_layers: u32,
    /// What the slice is for.
    pub role: SliceRole,
}

impl SliceOrigin {
    /// Reads the keys; `None` when the file is no slice.
    ///
    /// # Errors
    /// When some of the keys are missing or make no sense.
    pub fn of(metadata: &Metadata) -> Result<Option<Self>, KeyError> {
        if !metadata.contains(KEY_MODEL) {
            return Ok(None);
        }
        let bad = |key: &str, why: &str| KeyError::BadValue {
            key: key.to_owned(),
            why: why.to_owned(),
        };
        let model = metadata
            .str(KEY_MODEL)?
            .parse()
            .map_err(|_| bad(KEY_MODEL, "is no fingerprint"))?;
        let role = match metadata.str(KEY_ROLE)? {
            "stage" => SliceRole::Stage,
            "tail" => SliceRole::Tail,
            _ => return Err(bad(KEY_ROLE, "is neither \"stage\" nor \"tail\"")),
        };
        let layers = metadata.u32(KEY_FIRST)?..metadata.u32(KEY_END)?;
        let model_layers = metadata.u32(KEY_LAYERS)?;
        if layers.is_empty() || layers.end > model_layers || model_layers > LAYERS_MAX {
            return Err(bad(KEY_LAYERS, "does not fit the slice's layers"));
        }
        Ok(Some(Self {
            model,
            layers,
            model_layers,
            role,
        }))
    }

    pub(crate) fn write(&self, metadata: &mut Metadata) {
        metadata.set(KEY_MODEL, self.model.to_string());
        metadata.set(KEY_FIRST, self.layers.start);
        metadata.set(KEY_END, self.layers.end);
        metadata.set(KEY_LAYERS, self.model_layers);
        metadata.set(KEY_ROLE, self.role.to_string());
    }
}
