//! Owns the traps of single architectures: llama.cpp tells some variants apart by their number
//! of layers or of tokens, both of which a slice changes. Here models and slices that would be
//! computed wrongly are refused, and what llama.cpp would have concluded is written down.

use super::SliceRole;
use super::error::SliceError;
use super::layers::LayerMap;
use super::table::Special;
use crate::error::KeyError;
use crate::metadata::{Metadata, optional};

/// Numbers of `expert_gating_func`.
const GATING_SOFTMAX: u32 = 1;
const GATING_SIGMOID: u32 = 2;

const QUERY_RANK: &str = "attention.q_lora_rank";
const GATING: &str = "expert_gating_func";

/// Refuses models that no slice can be made of.
pub(crate) fn check_model(map: &LayerMap<'_>) -> Result<(), SliceError> {
    match map.architecture().special {
        Special::GemmaScale { layers } if map.layers() == layers && gemma_scales_differ(map)? => {
            Err(SliceError::Variant {
                architecture: map.architecture().name,
                why: format!(
                    "llama.cpp gives attention another scale in models of {layers} layers, and no slice has so many"
                ),
            })
        }
        _ => Ok(()),
    }
}

/// Refuses slices that would be taken for another variant.
pub(crate) fn check_slice(
    map: &LayerMap<'_>,
    layers: u32,
    role: SliceRole,
) -> Result<(), SliceError> {
    let refuse = |why| {
        Err(SliceError::Length {
            architecture: map.architecture().name,
            layers,
            why,
        })
    };
    match map.architecture().special {
        // The whole model of this length is refused before, unless both scales are the same.
        Special::GemmaScale { layers: other } if layers == other && gemma_scales_differ(map)? => {
            refuse("llama.cpp gives attention another scale in models of so many layers")
        }
        Special::Deepseek2 => {
            let model = map.model().metadata();
            let rank = optional(model.arch_u32(QUERY_RANK))?.unwrap_or(0);
            let vocab = match role {
                SliceRole::Stage => 1,
                SliceRole::Tail | SliceRole::Whole => model.vocab_size()?,
            };
            let whole = has_plain_queries(map.layers(), model.vocab_size()?);
            if has_plain_queries(layers, vocab) && !whole && rank > 0 {
                return refuse(
                    "llama.cpp expects queries without compression in models of so many layers",
                );
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Writes down what llama.cpp concludes from the whole model's size.
pub(crate) fn amend(map: &LayerMap<'_>, out: &mut Metadata) -> Result<(), KeyError> {
    if map.architecture().special != Special::Deepseek2 {
        return Ok(());
    }
    let model = map.model().metadata();
    let vocab = model.vocab_size()?;
    if has_plain_queries(map.layers(), vocab) {
        out.set(model.arch_key(QUERY_RANK)?, 0u32);
    }
    if optional(model.arch_u32(GATING))?.unwrap_or(0) == 0 {
        // GLM 4.7 Flash was published without the key.
        let sigmoid = matches!(map.layers(), 47 | 48) && vocab == 154_880;
        let function = if sigmoid {
            GATING_SIGMOID
        } else {
            GATING_SOFTMAX
        };
        out.set(model.arch_key(GATING)?, function);
    }
    Ok(())
}

/// Models of the DeepSeek-V2-Lite family, for which llama.cpp does not read the rank of queries.
fn has_plain_queries(layers: u32, vocab: u64) -> bool {
    matches!(layers, 26 | 27) || (layers == 48 && vocab == 128_256)
}

/// True when the two scales that Gemma's attention may have are different ones in this model:
/// that of its heads, and that of its width shared out to its heads.
fn gemma_scales_differ(map: &LayerMap<'_>) -> Result<bool, KeyError> {
    let metadata = map.model().metadata();
    let heads = metadata.head_counts()?.first().copied().unwrap_or(0);
    let share = map
        .width()
        .checked_div(heads)
        .ok_or_else(|| KeyError::BadValue {
            key: metadata
                .arch_key("attention.head_count")
                .unwrap_or_default(),
            why: "is 0".to_owned(),
        })?;
    let length = optional(metadata.arch_u32("attention.key_length"))?.unwrap_or(share);
    Ok(length != share)
}
