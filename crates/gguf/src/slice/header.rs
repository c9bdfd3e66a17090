//! Owns what a slice's metadata and tensor names are, given those of the whole model.
//! Which cuts are legal is in `layers`; where the weights lie is in `plan`.

use std::ops::Range;

use super::error::SliceError;
use super::layers::{LayerMap, Place, check_array};
use super::{SliceOrigin, SliceRole, variant};
use crate::error::KeyError;
use crate::metadata::Metadata;
use crate::model::{KEY_SPLIT_COUNT, KEY_SPLIT_NO, KEY_SPLIT_TENSORS};
use crate::value::{Array, StringArray, Value};

/// Keys with one value for each tensor named in the first of them.
const TENSOR_EXTRA: &str = "general.tensor_extra.";
const KEY_TENSOR_EXTRA_NAMES: &str = "general.tensor_extra.name";

/// A legal slice of a model, before anything is made of it.
pub(crate) struct Cut<'a, 'm> {
    pub(crate) map: &'a LayerMap<'m>,
    pub(crate) range: Range<u32>,
    pub(crate) role: SliceRole,
}

impl Cut<'_, '_> {
    /// The slice's metadata.
    pub(crate) fn metadata(&self) -> Result<Metadata, SliceError> {
        if self.role == SliceRole::Whole {
            return Ok(self.unchanged());
        }
        let whole = self.map.model().metadata();
        let prefix = format!("{}.", self.map.architecture().name);
        let mut out = Metadata::new();
        for (key, value) in whole.iter() {
            let suffix = key.strip_prefix(&prefix);
            if self.is_dropped(key, suffix) {
                continue;
            }
            let value = match suffix {
                Some(suffix) => self.value(suffix, value)?,
                None => value.clone(),
            };
            out.set(key, value);
        }
        self.add_tensor_extras(whole, &mut out)?;
        if self.role == SliceRole::Stage {
            out.set("tokenizer.ggml.model", "no_vocab");
            out.set(format!("{prefix}vocab_size"), 1u32);
        }
        variant::amend(self.map, &mut out)?;
        let origin = SliceOrigin {
            model: self.map.model().fingerprint(),
            layers: self.range.clone(),
            model_layers: self.map.layers(),
            role: self.role,
        };
        origin.write(&mut out);
        Ok(out)
    }

    /// The whole model's metadata, but for what says that it lies in several files.
    fn unchanged(&self) -> Metadata {
        let model = self.map.model();
        let is_divided = model.parts().len() > 1;
        let mut out = Metadata::new();
        for (key, value) in model.metadata().iter() {
            if !(is_divided && is_of_parts(key)) {
                out.set(key, value.clone());
            }
        }
        out
    }

    /// True for keys that the slice has not, or gets anew.
    fn is_dropped(&self, key: &str, suffix: Option<&str>) -> bool {
        let parts = is_of_parts(key);
        // A stage gives hidden states of every token; pooling them is the tail's work.
        let head =
            key.starts_with("tokenizer.") || matches!(suffix, Some("vocab_size" | "pooling_type"));
        parts
            || key.starts_with(TENSOR_EXTRA)
            || suffix == Some("nextn_predict_layers")
            || (self.role == SliceRole::Stage && head)
    }

    /// The value of `{architecture}.{suffix}` in the slice.
    fn value(&self, suffix: &str, value: &Value) -> Result<Value, SliceError> {
        let whole = self.map.model().metadata();
        match suffix {
            "block_count" => Ok((self.range.end - self.range.start).into()),
            "leading_dense_block_count" => {
                let leading = whole.arch_u32(suffix)?;
                Ok(leading.saturating_sub(self.range.start).into())
            }
            _ if self
                .map
                .architecture()
                .per_layer_keys()
                .any(|k| k == suffix) =>
            {
                let Some(array) = check_array(whole, suffix, self.map.layers())? else {
                    return Ok(value.clone());
                };
                let range = self.range.start as usize..self.range.end as usize;
                // The array has a value for every layer, so there is one for each of the slice's.
                Ok(array
                    .slice(range)
                    .map_or_else(|| value.clone(), Value::from))
            }
            _ => Ok(value.clone()),
        }
    }

    /// Keeps and renames what the file says about single tensors.
    fn add_tensor_extras(&self, whole: &Metadata, out: &mut Metadata) -> Result<(), SliceError> {
        if !whole.contains(KEY_TENSOR_EXTRA_NAMES) {
            return Ok(());
        }
        let names = whole.strings(KEY_TENSOR_EXTRA_NAMES)?;
        let mut kept = Vec::new();
        let mut renamed = StringArray::default();
        for i in 0..names.len() {
            let name = names.get(i).unwrap_or_default();
            if let Some(name) = self.tensor_name(&name)? {
                kept.push(i);
                renamed.push(name);
            }
        }
        out.set(KEY_TENSOR_EXTRA_NAMES, renamed);
        let extras = whole.iter().filter(|(k, _)| k.starts_with(TENSOR_EXTRA));
        for (key, value) in extras.filter(|(k, _)| *k != KEY_TENSOR_EXTRA_NAMES) {
            out.set(key, pick(key, value, names.len(), &kept)?);
        }
        Ok(())
    }

    /// The name that a tensor of the whole model has in the slice; `None` when it is not in it.
    pub(crate) fn tensor_name(&self, name: &str) -> Result<Option<String>, SliceError> {
        if self.role == SliceRole::Whole {
            return Ok(Some(name.to_owned()));
        }
        Ok(match self.map.place(name)? {
            Place::Layer(layer) if self.range.contains(&layer) => {
                let rest = name.split_once('.').and_then(|(_, r)| r.split_once('.'));
                let new = layer - self.range.start;
                rest.map(|(_, rest)| format!("blk.{new}.{rest}"))
            }
            Place::Layer(_) | Place::Draft => None,
            Place::Shared => Some(name.to_owned()),
            Place::Head => (self.role == SliceRole::Tail).then(|| name.to_owned()),
        })
    }
}

/// Whether a key says that a model lies in several files, and which one this is.
fn is_of_parts(key: &str) -> bool {
    matches!(key, KEY_SPLIT_NO | KEY_SPLIT_COUNT | KEY_SPLIT_TENSORS)
}

/// The elements at `kept`, when the value is an array of `count`.
fn pick(key: &str, value: &Value, count: usize, kept: &[usize]) -> Result<Value, KeyError> {
    let array = match value {
        Value::Array(array) if array.len() == count => array,
        _ => {
            return Err(KeyError::BadValue {
                key: key.to_owned(),
                why: format!("does not hold {count} values, one for each tensor named"),
            });
        }
    };
    let picked: Option<Array> = array.pick(kept);
    picked.map(Value::from).ok_or_else(|| KeyError::BadValue {
        key: key.to_owned(),
        why: "is too short".to_owned(),
    })
}
