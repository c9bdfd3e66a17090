//! Owns the table of architectures that can be split: where each may be cut, which of its metadata
//! count layers, and what llama.cpp does with its input. One entry per architecture.
//!
//! Every entry was read off the loader and graph of the llama.cpp that is compiled in (0.1.161 of
//! `llama-cpp-sys-2`, `src/models/*.cpp`). Read them again when that version changes: a key that
//! a newer loader counts by layers must be added here before the new version splits anything.

/// Metadata that the loader of every architecture reads as one value per layer, if it is an array.
pub(crate) const PER_LAYER_EVERYWHERE: &[&str] = &[
    "attention.head_count",
    "attention.head_count_kv",
    "expert_used_count",
    "feed_forward_length",
];

/// How an architecture's layers repeat, which says where it may be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerPeriod {
    /// A layer does not depend on its number: any cut is good.
    One,
    /// Layers with and without a sliding window, told apart by their number. The period is the
    /// number at `attention.sliding_window_pattern`. An array there names the kind of each layer,
    /// is cut along, and allows any cut.
    Window {
        /// Period of a file that has no such key.
        default: u32,
        /// True when a file without `attention.sliding_window` has no windows at all.
        optional: bool,
    },
    /// Layers with linear and with full attention, told apart by `full_attention_interval` or by
    /// the array `attention.recurrent_layers`. llama.cpp needs both kinds in every slice.
    Linear {
        /// Interval of a file that has neither key.
        default: u32,
    },
}

/// What llama.cpp does with rows that enter a model, beside passing them to the first layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmbeddingScale {
    /// Nothing.
    None,
    /// Rows of tokens are multiplied by the square root of the width, embeddings are not: whoever
    /// looks a token's row up must scale it, and hidden states go in as they are.
    Tokens,
    /// Every row is multiplied by the square root of the width, embeddings too: rows of tokens go
    /// in unscaled, and hidden states must be divided by it, or put in behind the multiplication.
    Everything,
}

/// Where the matrix that makes logits comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Head {
    /// `output.weight`, or the token embedding of a file that has none.
    Optional,
    /// `output.weight`, which the loader insists on.
    Required,
}

/// What the number of layers decides beside the obvious, hidden in llama.cpp's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Special {
    /// Nothing.
    None,
    /// A model of so many layers scales attention by other numbers than the rest.
    GemmaScale {
        /// Layers of the variant with 27 billion weights.
        layers: u32,
    },
    /// Models of 26, 27 and some of 48 layers have uncompressed queries; some of 47 and 48 layers
    /// choose experts by another function.
    Deepseek2,
}

/// One architecture that can be split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SplitArchitecture {
    /// `general.architecture` in the file.
    pub name: &'static str,
    /// Where it may be cut.
    pub period: LayerPeriod,
    /// What happens to rows that enter it.
    pub embedding_scale: EmbeddingScale,
    /// Name of the node of llama.cpp's graph that holds the rows which the first layer reads,
    /// scaled if they are scaled: one row of the model's width for each token of the batch.
    pub input_node: &'static str,
    /// True when llama.cpp ends the process on a batch of embeddings unless the file has
    /// `rope.dimension_sections`. A batch of tokens whose rows are replaced at
    /// [`SplitArchitecture::input_node`] works for every file.
    pub embeddings_need_sections: bool,
    /// Suffixes of keys that are cut to a slice's layers when they hold an array, beside
    /// those that every architecture has.
    pub per_layer: &'static [&'static str],
    pub(crate) head: Head,
    pub(crate) special: Special,
}

/// An architecture without peculiarities.
const fn plain(name: &'static str) -> SplitArchitecture {
    SplitArchitecture {
        name,
        period: LayerPeriod::One,
        embedding_scale: EmbeddingScale::None,
        input_node: "embd",
        embeddings_need_sections: false,
        per_layer: &[],
        head: Head::Optional,
        special: Special::None,
    }
}

/// Experts that may be of another width in each layer.
const EXPERTS: &[&str] = &["expert_feed_forward_length"];
const WINDOWS: &[&str] = &["attention.sliding_window_pattern"];

/// The table, sorted by name.
pub(crate) const TABLE: &[SplitArchitecture] = &[
    SplitArchitecture {
        per_layer: EXPERTS,
        special: Special::Deepseek2,
        ..plain("deepseek2")
    },
    SplitArchitecture {
        period: LayerPeriod::Window {
            default: 2,
            optional: false,
        },
        embedding_scale: EmbeddingScale::Everything,
        input_node: "inp_scaled",
        per_layer: WINDOWS,
        special: Special::GemmaScale { layers: 46 },
        ..plain("gemma2")
    },
    SplitArchitecture {
        period: LayerPeriod::Window {
            default: 6,
            optional: true,
        },
        embedding_scale: EmbeddingScale::Tokens,
        input_node: "inp_scaled",
        per_layer: WINDOWS,
        special: Special::GemmaScale { layers: 62 },
        ..plain("gemma3")
    },
    SplitArchitecture {
        embeddings_need_sections: true,
        ..plain("glm4")
    },
    SplitArchitecture {
        embeddings_need_sections: true,
        per_layer: EXPERTS,
        ..plain("glm4moe")
    },
    SplitArchitecture {
        period: LayerPeriod::Window {
            default: 2,
            optional: false,
        },
        per_layer: &[
            "attention.sliding_window_pattern",
            "expert_feed_forward_length",
        ],
        head: Head::Required,
        ..plain("gpt-oss")
    },
    plain("llama"),
    plain("mistral3"),
    // Its sliding window is switched off in llama.cpp, so every layer is like every other.
    plain("phi3"),
    plain("qwen2"),
    plain("qwen3"),
    SplitArchitecture {
        period: LayerPeriod::Linear { default: 4 },
        input_node: "model.input_embed",
        per_layer: &["attention.recurrent_layers"],
        ..plain("qwen35")
    },
    SplitArchitecture {
        period: LayerPeriod::Linear { default: 4 },
        input_node: "model.input_embed",
        per_layer: &["attention.recurrent_layers", "expert_feed_forward_length"],
        ..plain("qwen35moe")
    },
    SplitArchitecture {
        per_layer: EXPERTS,
        ..plain("qwen3moe")
    },
];

impl SplitArchitecture {
    /// All architectures that can be split, sorted by name.
    #[must_use]
    pub fn all() -> &'static [Self] {
        TABLE
    }

    /// The entry of an architecture, or `None` when it can only run whole.
    #[must_use]
    pub fn of(name: &str) -> Option<&'static Self> {
        TABLE.iter().find(|a| a.name == name)
    }

    /// Suffixes of all keys that are cut to a slice's layers when they hold an array.
    pub fn per_layer_keys(&self) -> impl Iterator<Item = &'static str> {
        PER_LAYER_EVERYWHERE.iter().chain(self.per_layer).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_found_by_name() {
        assert!(TABLE.is_sorted_by(|a, b| a.name < b.name));
        for entry in TABLE {
            assert_eq!(SplitArchitecture::of(entry.name), Some(entry));
        }
        assert_eq!(SplitArchitecture::of("llama4"), None);
    }
}
