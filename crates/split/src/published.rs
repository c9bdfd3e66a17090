//! Shapes of large models, from their published configurations, and how many bytes a quantisation makes
//! of them. Good for planning before anybody has downloaded a file; a file's own header is exact.
//!
//! Sources:
//! - `Llama-3.3-70B`: `config.json` of Llama 3 70B, whose shape it has (width 8192, 80 layers, 64 heads, 8 for keys
//!   and values, feed-forward 28672, vocabulary 128256).
//! - `Qwen2.5-72B`: its `config.json` (width 8192, 80 layers, 64 and 8 heads, feed-forward 29568, vocabulary 152064).
//! - `Qwen3.5-397B-A17B`: training scripts that name its `config.json` values (width 4096, 60 layers, 32 and 2 heads of
//!   256, 512 experts of 1024, 10 used, one shared, vocabulary 248320).
//! - `Qwen3.5-122B-A10B`: published overviews (width 3072, 48 layers, 32 heads, 256 experts, 8 used, one shared,
//!   every fourth layer with full attention, vocabulary 248320). Not confirmed by a configuration file: experts
//!   of 1024, 2 key and value heads of 256. With them it has 122.1 billion weights, as its name says.
//! - Linear attention of both (16 key heads and 64 value heads of 128, convolution over 4) is not confirmed for
//!   either; the sums of weights are those of their names with it, and 1.4 billion short with 32 value heads.

mod quantisation;
mod weights;

pub use quantisation::{QUANTISATIONS, Quantisation};
pub use weights::{Attention, FeedForward, MODELS, Published};

use crate::plan::ModelShape;
use thiserror::Error;

/// The quantisation of a name that has none.
const QUANTISATION_DEFAULT: &str = "Q4_K_M";

/// A model and a quantisation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Variant {
    /// The model.
    pub model: &'static Published,
    /// How its weights are stored.
    pub quantisation: &'static Quantisation,
}

impl Variant {
    /// Its shape.
    #[must_use]
    pub fn shape(&self) -> ModelShape {
        self.model.shape(self.quantisation)
    }
}

/// Why a name is no published model.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UnknownModel {
    /// The model is not in the table.
    #[error(
        "the shape of {name:?} is not known; hint: name a GGUF file, or one of {}",
        model_names()
    )]
    Model {
        /// The name.
        name: String,
    },
    /// The quantisation is not in the table.
    #[error(
        "{name:?} is no quantisation of the table; hint: take one of {}",
        quantisation_names()
    )]
    Quantisation {
        /// The name.
        name: String,
    },
}

fn model_names() -> String {
    MODELS.map(|model| model.name).join(", ")
}

fn quantisation_names() -> String {
    QUANTISATIONS
        .map(|quantisation| quantisation.name)
        .join(", ")
}

/// Reads `NAME` or `NAME:QUANTISATION`, whatever the case, with or without `-Instruct`.
///
/// # Errors
/// [`UnknownModel`].
pub fn parse(text: &str) -> Result<Variant, UnknownModel> {
    let (name, quantisation) = text
        .rsplit_once(':')
        .unwrap_or((text, QUANTISATION_DEFAULT));
    let lower = name.to_lowercase();
    let plain = lower.strip_suffix("-instruct").unwrap_or(&lower);
    let model = MODELS
        .iter()
        .find(|model| model.name.to_lowercase() == plain);
    let model = model.ok_or_else(|| UnknownModel::Model {
        name: name.to_owned(),
    })?;
    let found = QUANTISATIONS
        .iter()
        .find(|known| known.name.eq_ignore_ascii_case(quantisation));
    let quantisation = found.ok_or_else(|| UnknownModel::Quantisation {
        name: quantisation.to_owned(),
    })?;
    Ok(Variant {
        model,
        quantisation,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_any_case() {
        for (text, model, quantisation) in [
            ("Llama-3.3-70B", "Llama-3.3-70B", "Q4_K_M"),
            ("llama-3.3-70b-instruct:q8_0", "Llama-3.3-70B", "Q8_0"),
            ("Qwen3.5-397B-A17B:Q2_K", "Qwen3.5-397B-A17B", "Q2_K"),
        ] {
            let variant = parse(text).unwrap();
            assert_eq!(variant.model.name, model);
            assert_eq!(variant.quantisation.name, quantisation);
        }
    }

    #[test]
    fn unknown_names_say_what_is_known() {
        let model = parse("gpt-9").unwrap_err().to_string();
        assert!(model.contains("Qwen3.5-122B-A10B"), "{model}");
        let quantisation = parse("Qwen2.5-72B:Q9").unwrap_err().to_string();
        assert!(quantisation.contains("Q3_K_M"), "{quantisation}");
    }

    /// Sizes of published files in GB: quantisations of Llama 3.3 70B and Qwen2.5 72B Instruct and of Qwen3.5 397B
    /// by bartowski. The last gives some tensors of linear attention more bits than llama.cpp's own mixture does.
    #[test]
    fn sizes_are_those_of_published_files() {
        for (name, gb) in [
            ("Llama-3.3-70B:Q2_K", 26.4),
            ("Llama-3.3-70B:Q3_K_M", 34.3),
            ("Llama-3.3-70B:Q4_K_M", 42.5),
            ("Llama-3.3-70B:Q5_K_M", 49.9),
            ("Qwen2.5-72B:Q2_K", 29.8),
            ("Qwen2.5-72B:Q3_K_M", 37.7),
            ("Qwen2.5-72B:Q4_K_M", 47.4),
            ("Qwen3.5-397B-A17B:Q5_K_M", 283.3),
            ("Qwen3.5-397B-A17B:Q8_0", 421.6),
        ] {
            let bytes = parse(name).unwrap().shape().weight_bytes() as f64;
            let ratio = bytes / (gb * 1e9);
            assert!((0.985..1.015).contains(&ratio), "{name}: {ratio}");
        }
    }

    #[test]
    fn models_have_as_many_weights_as_their_names_say() {
        let f16 = &QUANTISATIONS[QUANTISATIONS.len() - 1];
        for (model, billions, active) in [
            (0, 70.6, 69.5),
            (1, 72.7, 71.5),
            (2, 122.1, 9.5),
            (3, 396.3, 16.5),
        ] {
            let shape = MODELS[model].shape(f16);
            let weights = shape.weight_bytes() as f64 / 2e9;
            assert!((weights - billions).abs() < 0.1, "{model}: {weights}");
            let parts = shape.parts();
            let read: u64 = parts.layers.iter().map(|layer| layer.active_bytes).sum();
            let read = (read + parts.head_active_bytes) as f64 / 2e9;
            assert!((read / active - 1.0).abs() < 0.08, "{model}: {read}");
        }
    }
}
