//! Owns what metadata keys say about a model: architecture, sizes, heads, pooling, template, and
//! the estimate of KV cache per token that follows from them. It does not look at tensors.

use crate::error::KeyError;
use crate::file_type::file_type_name;
use crate::limits::LAYERS_MAX;
use crate::metadata::{Metadata, optional, wrong_type};
use crate::value::Value;

/// How an embedding model makes one vector of a sequence. Numbers are llama.cpp's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// No pooling: one vector per token.
    None,
    /// Mean of all tokens.
    Mean,
    /// First token.
    Cls,
    /// Last token.
    Last,
    /// Classification head: a score instead of a vector.
    Rank,
}

impl Metadata {
    /// Architecture, for instance `qwen3`.
    ///
    /// # Errors
    /// When the key is missing, of another type, or empty.
    pub fn architecture(&self) -> Result<&str, KeyError> {
        const KEY: &str = "general.architecture";
        match self.str(KEY)? {
            "" => Err(KeyError::BadValue {
                key: KEY.into(),
                why: "is empty".into(),
            }),
            name => Ok(name),
        }
    }

    /// The model's own name, if it has one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.str("general.name").ok().filter(|n| !n.is_empty())
    }

    /// The key `{architecture}.{suffix}`.
    ///
    /// # Errors
    /// As [`Metadata::architecture`].
    pub fn arch_key(&self, suffix: &str) -> Result<String, KeyError> {
        Ok(format!("{}.{suffix}", self.architecture()?))
    }

    /// The number at `{architecture}.{suffix}`.
    ///
    /// # Errors
    /// As [`Metadata::u32`].
    pub fn arch_u32(&self, suffix: &str) -> Result<u32, KeyError> {
        self.u32(&self.arch_key(suffix)?)
    }

    /// Number of layers.
    ///
    /// # Errors
    /// When the key is missing, of another type, or beyond any model.
    pub fn block_count(&self) -> Result<u32, KeyError> {
        let key = self.arch_key("block_count")?;
        let count = self.u32(&key)?;
        if count > LAYERS_MAX {
            return Err(KeyError::BadValue {
                key,
                why: format!("is {count}, over the maximum of {LAYERS_MAX}"),
            });
        }
        Ok(count)
    }

    /// Context length that the model was trained for, in tokens.
    ///
    /// # Errors
    /// As [`Metadata::u32`].
    pub fn context_length(&self) -> Result<u32, KeyError> {
        self.arch_u32("context_length")
    }

    /// Width of the hidden state, in elements.
    ///
    /// # Errors
    /// As [`Metadata::u32`].
    pub fn embedding_length(&self) -> Result<u32, KeyError> {
        self.arch_u32("embedding_length")
    }

    /// Attention heads of each layer; one value in the file stands for all layers.
    ///
    /// # Errors
    /// When the key is missing, of another type, or has fewer values than layers.
    pub fn head_counts(&self) -> Result<Vec<u32>, KeyError> {
        self.per_layer("attention.head_count")
    }

    /// Key and value heads of each layer. Layers without attention have 0. A file that does not
    /// say has as many as attention heads.
    ///
    /// # Errors
    /// As [`Metadata::head_counts`].
    pub fn kv_head_counts(&self) -> Result<Vec<u32>, KeyError> {
        match optional(self.per_layer("attention.head_count_kv"))? {
            Some(counts) => Ok(counts),
            None => self.head_counts(),
        }
    }

    /// A number for each layer at `{architecture}.{suffix}`: one value for all, or an array.
    ///
    /// # Errors
    /// When the key is missing, of another type, or has fewer values than layers.
    pub fn per_layer(&self, suffix: &str) -> Result<Vec<u32>, KeyError> {
        let key = self.arch_key(suffix)?;
        let layers = self.block_count()? as usize;
        let value = self.require(&key)?;
        let Value::Array(array) = value else {
            return Ok(vec![self.u32(&key)?; layers]);
        };
        if array.len() < layers {
            let why = format!("has {} values for {layers} layers", array.len());
            return Err(KeyError::BadValue { key, why });
        }
        let number = |i| array.get_u64(i).and_then(|n| u32::try_from(n).ok());
        (0..layers)
            .map(|i| {
                number(i).ok_or_else(|| wrong_type(&key, "an array of unsigned integers", value))
            })
            .collect()
    }

    /// Name of the file's quantisation, for instance `Q4_K_M`, if the file says it.
    #[must_use]
    pub fn quantization(&self) -> Option<&'static str> {
        self.u32("general.file_type").ok().and_then(file_type_name)
    }

    /// How the model pools embeddings; `None` for a model that is not for embeddings.
    ///
    /// # Errors
    /// When the key is of another type or has an unknown number.
    pub fn pooling(&self) -> Result<Option<Pooling>, KeyError> {
        let key = self.arch_key("pooling_type")?;
        Ok(Some(match optional(self.u32(&key))? {
            None => return Ok(None),
            Some(0) => Pooling::None,
            Some(1) => Pooling::Mean,
            Some(2) => Pooling::Cls,
            Some(3) => Pooling::Last,
            Some(4) => Pooling::Rank,
            Some(other) => {
                return Err(KeyError::BadValue {
                    key,
                    why: format!("is unknown pooling type {other}"),
                });
            }
        }))
    }

    /// The model's chat template (Jinja), if it has one.
    #[must_use]
    pub fn chat_template(&self) -> Option<&str> {
        self.str("tokenizer.chat_template").ok()
    }

    /// Number of tokens in the vocabulary.
    ///
    /// # Errors
    /// When neither the architecture's key nor a token list is there, or of another type.
    pub fn vocab_size(&self) -> Result<u64, KeyError> {
        match optional(self.arch_u32("vocab_size"))? {
            Some(size) => Ok(size.into()),
            None => Ok(self.array("tokenizer.ggml.tokens")?.len() as u64),
        }
    }

    /// Bytes of KV cache for one token at 16 bits an element, for ordinary attention and for the
    /// compressed attention of DeepSeek.
    ///
    /// Layers with a sliding window count in full, so for them this is an upper bound. Layers
    /// with recurrent state hold a fixed amount that this leaves out.
    ///
    /// # Errors
    /// When sizes of the attention are missing or make no sense.
    pub fn kv_bytes_per_token(&self) -> Result<u64, KeyError> {
        let layers = self.kv_bytes_per_token_of_layers()?;
        Ok(layers.into_iter().fold(0, u64::saturating_add))
    }

    /// [`Metadata::kv_bytes_per_token`] of each layer; 0 of layers without key and value heads.
    ///
    /// # Errors
    /// As [`Metadata::kv_bytes_per_token`].
    pub fn kv_bytes_per_token_of_layers(&self) -> Result<Vec<u64>, KeyError> {
        const ELEMENT_BYTES: u64 = 2;
        let heads = self.head_counts()?;
        let kv_heads = self.kv_head_counts()?;
        let width = u64::from(self.embedding_length()?);
        let key_length = optional(self.arch_u32("attention.key_length"))?;
        let value_length = optional(self.arch_u32("attention.value_length"))?;
        // Compressed attention caches one row per token; values are a part of the key row.
        let compressed = self.contains(&self.arch_key("attention.key_length_mla")?);
        let layers = heads.iter().zip(&kv_heads).map(|(&heads, &kv_heads)| {
            let head_length = width.checked_div(heads.into()).unwrap_or(0);
            let k = key_length.map_or(head_length, u64::from);
            let v = if compressed {
                0
            } else {
                value_length.map_or(head_length, u64::from)
            };
            // 2^32 heads of 2^33 elements cannot be; saturating keeps nonsense finite.
            u64::from(kv_heads).saturating_mul((k + v) * ELEMENT_BYTES)
        });
        Ok(layers.collect())
    }
}
