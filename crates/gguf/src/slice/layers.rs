//! Owns what can be said about a model's layers before it is cut: how many there are, how many
//! bytes each takes, and where the cuts may lie. It makes no slices; `plan` does.

use std::ops::Range;

use super::SliceRole;
use super::error::SliceError;
use super::table::{LayerPeriod, SplitArchitecture};
use super::variant;
use crate::error::KeyError;
use crate::limits::WIDTH_MAX;
use crate::metadata::{Metadata, optional, wrong_type};
use crate::model::Model;
use crate::value::{Array, Value};

/// Name of the matrix of token rows.
pub(crate) const TOKEN_EMBEDDING: &str = "token_embd.weight";

/// Tensors outside the layers that every layer reads. All others outside belong to the head.
const SHARED: &[&str] = &[
    "rope_factors_long.weight",
    "rope_factors_short.weight",
    "rope_freqs.weight",
];

/// Where a tensor belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// To a layer.
    Layer(u32),
    /// To a layer behind the last one that only drafts tokens (MTP). No slice holds these.
    Draft,
    /// To every layer.
    Shared,
    /// To the token embedding or the head: only the tail holds it.
    Head,
}

/// A model's layers: sizes and legal cuts. Computed from headers alone.
#[derive(Debug, Clone)]
pub struct LayerMap<'m> {
    model: &'m Model,
    rules: &'static SplitArchitecture,
    layers: u32,
    blocks: u32,
    width: u32,
    cuts: Vec<u32>,
    layer_bytes: Vec<u64>,
    shared_bytes: u64,
    head_bytes: u64,
}

impl<'m> LayerMap<'m> {
    /// Looks at a model's headers.
    ///
    /// # Errors
    /// When the architecture or this variant of it cannot be split, when the model is a slice
    /// already, or when metadata and tensors do not make a model.
    pub fn of(model: &'m Model) -> Result<Self, SliceError> {
        let metadata = model.metadata();
        let name = metadata.architecture()?;
        let Some(rules) = SplitArchitecture::of(name) else {
            return Err(SliceError::Architecture {
                name: name.to_owned(),
            });
        };
        if super::SliceOrigin::of(metadata)?.is_some() {
            return Err(SliceError::AlreadySliced);
        }
        let blocks = metadata.block_count()?;
        let layers = layer_count(metadata, blocks)?;
        for suffix in rules.per_layer_keys() {
            check_array(metadata, suffix, layers)?;
        }
        let mut map = Self {
            model,
            rules,
            layers,
            blocks,
            width: width(model)?,
            cuts: cuts(metadata, rules.period, layers)?,
            layer_bytes: vec![0; layers as usize],
            shared_bytes: 0,
            head_bytes: 0,
        };
        map.add_sizes()?;
        variant::check_model(&map)?;
        Ok(map)
    }

    /// Adds up the bytes of every place, and finds layers without tensors.
    fn add_sizes(&mut self) -> Result<(), SliceError> {
        for tensor in self.model.tensors() {
            let bytes = tensor.info.size_bytes()?;
            let sum = match self.place(&tensor.info.name)? {
                Place::Layer(layer) => &mut self.layer_bytes[layer as usize],
                Place::Draft => continue,
                Place::Shared => &mut self.shared_bytes,
                Place::Head => &mut self.head_bytes,
            };
            *sum = sum.saturating_add(bytes);
        }
        match self.layer_bytes.iter().position(|&bytes| bytes == 0) {
            None => Ok(()),
            Some(layer) => Err(SliceError::Tensor {
                name: format!("blk.{layer}.*"),
                why: "is missing: the layer has no weights".to_owned(),
            }),
        }
    }

    /// Where the tensor of this name belongs.
    pub(crate) fn place(&self, name: &str) -> Result<Place, SliceError> {
        let Some(rest) = name.strip_prefix("blk.") else {
            return Ok(if SHARED.contains(&name) {
                Place::Shared
            } else {
                Place::Head
            });
        };
        let digits = rest.split('.').next().unwrap_or_default();
        let layer: Option<u32> = digits.parse().ok();
        match layer {
            // "01" and "+1" are numbers too, but no names that llama.cpp asks for.
            Some(layer) if layer.to_string() == digits && rest.len() > digits.len() => {
                if layer < self.layers {
                    return Ok(Place::Layer(layer));
                }
                if layer < self.blocks {
                    return Ok(Place::Draft);
                }
                Err(SliceError::Tensor {
                    name: name.to_owned(),
                    why: format!("is of no layer: the model has {}", self.blocks),
                })
            }
            _ => Err(SliceError::Tensor {
                name: name.to_owned(),
                why: "has no layer number in its name".to_owned(),
            }),
        }
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &'m Model {
        self.model
    }

    /// The architecture's entry in the table.
    #[must_use]
    pub fn architecture(&self) -> &'static SplitArchitecture {
        self.rules
    }

    /// Layers that can be dealt out. Layers that only draft tokens (MTP) do not count.
    #[must_use]
    pub fn layers(&self) -> u32 {
        self.layers
    }

    /// Width of the hidden state between two layers, in elements.
    #[must_use]
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Every legal cut, ascending, as the number of the first layer behind it.
    #[must_use]
    pub fn cuts(&self) -> &[u32] {
        &self.cuts
    }

    /// Bytes of each layer's weights, without padding.
    #[must_use]
    pub fn layer_bytes(&self) -> &[u64] {
        &self.layer_bytes
    }

    /// Bytes of the tensors that every slice holds.
    #[must_use]
    pub fn shared_bytes(&self) -> u64 {
        self.shared_bytes
    }

    /// Bytes of the tensors that only the tail holds: token embedding, norm and head.
    #[must_use]
    pub fn head_bytes(&self) -> u64 {
        self.head_bytes
    }

    /// Bytes of all slices' weights together, when nothing is held twice.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        let layers = self.layer_bytes.iter();
        layers
            .fold(self.shared_bytes, |sum, &bytes| sum.saturating_add(bytes))
            .saturating_add(self.head_bytes)
    }

    /// Says whether a slice of these layers is legal. `range` counts layers from 0.
    ///
    /// # Errors
    /// [`SliceError::Range`], [`SliceError::Tail`], [`SliceError::Cut`] or [`SliceError::Length`].
    pub fn check(&self, range: &Range<u32>, role: SliceRole) -> Result<(), SliceError> {
        let is_part = role == SliceRole::Whole && *range != (0..self.layers);
        if range.start >= range.end || range.end > self.layers || is_part {
            return Err(SliceError::Range {
                range: range.clone(),
                layers: self.layers,
            });
        }
        if role == SliceRole::Tail && range.end != self.layers {
            return Err(SliceError::Tail {
                end: range.end,
                layers: self.layers,
            });
        }
        for at in [range.start, range.end] {
            if at != 0 && at != self.layers && self.cuts.binary_search(&at).is_err() {
                return Err(SliceError::Cut {
                    architecture: self.rules.name,
                    at,
                    legal: self.cuts.clone(),
                });
            }
        }
        variant::check_slice(self, range.end - range.start, role)
    }
}

/// Layers of the model proper: all blocks but those that draft.
fn layer_count(metadata: &Metadata, blocks: u32) -> Result<u32, KeyError> {
    let drafting = optional(metadata.arch_u32("nextn_predict_layers"))?.unwrap_or(0);
    match blocks.checked_sub(drafting) {
        Some(layers) if layers > 0 => Ok(layers),
        _ => Err(KeyError::BadValue {
            key: metadata.arch_key("block_count")?,
            why: format!("is {blocks} with {drafting} drafting layers, which leaves no others"),
        }),
    }
}

/// The width, checked against the token embedding, which every tail and every host needs.
fn width(model: &Model) -> Result<u32, SliceError> {
    let metadata = model.metadata();
    let width = metadata.embedding_length()?;
    if width == 0 || width > WIDTH_MAX {
        return Err(SliceError::Key(KeyError::BadValue {
            key: metadata.arch_key("embedding_length")?,
            why: format!("is {width}, not 1 to {WIDTH_MAX}"),
        }));
    }
    let bad = |why: String| SliceError::Tensor {
        name: TOKEN_EMBEDDING.to_owned(),
        why,
    };
    let tensor = model
        .tensor(TOKEN_EMBEDDING)
        .ok_or_else(|| bad("is missing".to_owned()))?;
    match tensor.info.dims.as_slice() {
        [row, _] if *row == u64::from(width) => Ok(width),
        dims => Err(bad(format!(
            "has the shape {dims:?}, not rows of {width} elements"
        ))),
    }
}

/// The array at `{architecture}.{suffix}`, if the key holds one, with a value for every layer.
pub(crate) fn check_array<'m>(
    metadata: &'m Metadata,
    suffix: &str,
    layers: u32,
) -> Result<Option<&'m Array>, KeyError> {
    let key = metadata.arch_key(suffix)?;
    match metadata.get(&key) {
        Some(Value::Array(array)) if (array.len() as u64) < u64::from(layers) => {
            Err(KeyError::BadValue {
                why: format!("has {} values for {layers} layers", array.len()),
                key,
            })
        }
        Some(Value::Array(array)) => Ok(Some(array)),
        _ => Ok(None),
    }
}

fn cuts(metadata: &Metadata, period: LayerPeriod, layers: u32) -> Result<Vec<u32>, KeyError> {
    let period = match period {
        LayerPeriod::One => 1,
        LayerPeriod::Window { default, optional } => {
            window_period(metadata, default, optional, layers)?
        }
        LayerPeriod::Linear { default } => {
            return Ok(cuts_after_full(&linear_layers(metadata, default, layers)?));
        }
    };
    Ok((1..layers).filter(|at| at % period == 0).collect())
}

fn window_period(
    metadata: &Metadata,
    default: u32,
    may_be_off: bool,
    layers: u32,
) -> Result<u32, KeyError> {
    let window = optional(metadata.arch_u32("attention.sliding_window"))?.unwrap_or(0);
    let suffix = "attention.sliding_window_pattern";
    if (may_be_off && window == 0) || check_array(metadata, suffix, layers)?.is_some() {
        return Ok(1);
    }
    // 0 gives every layer a window, 1 none: both make all layers alike.
    Ok(optional(metadata.arch_u32(suffix))?
        .unwrap_or(default)
        .max(1))
}

/// For each layer whether its attention is linear.
fn linear_layers(metadata: &Metadata, default: u32, layers: u32) -> Result<Vec<bool>, KeyError> {
    let suffix = "attention.recurrent_layers";
    let key = metadata.arch_key(suffix)?;
    if let Some(array) = check_array(metadata, suffix, layers)? {
        let kind = |i: usize| match array {
            Array::Bool(values) => values.get(i).copied(),
            other => other.get_u64(i).map(|n| n != 0),
        };
        return (0..layers as usize)
            .map(|i| {
                let wanted = "an array of bools or unsigned integers";
                kind(i).ok_or_else(|| wrong_type(&key, wanted, &array.clone().into()))
            })
            .collect();
    }
    if metadata.contains(&key) {
        return Err(wrong_type(&key, "an array", metadata.require(&key)?));
    }
    let interval = optional(metadata.arch_u32("full_attention_interval"))?.unwrap_or(default);
    if interval == 0 {
        return Err(KeyError::BadValue {
            key: metadata.arch_key("full_attention_interval")?,
            why: "is 0".to_owned(),
        });
    }
    // Layer numbers start from 0, and the last layer of each interval is the full one.
    Ok((0..layers).map(|i| i % interval != interval - 1).collect())
}

/// Cuts between a layer with full attention and one with linear attention, such that both kinds
/// lie on either side. llama.cpp fills inputs for both kinds without looking whether any layer
/// reads them, and fails where none does.
fn cuts_after_full(linear: &[bool]) -> Vec<u32> {
    let first_linear = linear.iter().position(|&l| l).unwrap_or(linear.len());
    let last_full = linear.iter().rposition(|&l| !l).unwrap_or(0);
    (1..linear.len())
        .filter(|&at| !linear[at - 1] && linear[at] && first_linear < at && at <= last_full)
        .map(|at| at as u32)
        .collect()
}
