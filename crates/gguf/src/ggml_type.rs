//! Owns the table of ggml tensor types: number, name, and how many bytes a block of weights takes.
//! It converts no data.

use std::fmt;

macro_rules! ggml_types {
    ($($id:literal $variant:ident $name:literal $elements:literal $bytes:literal,)*) => {
        /// How a tensor's elements are stored. Numbers, block sizes and bytes are those of
        /// `ggml.h` and `ggml-common.h`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(missing_docs, non_camel_case_types)]
        pub enum GgmlType {
            $($variant,)*
            /// A number that this version does not know, or one that ggml has withdrawn.
            Unknown(u32),
        }

        impl GgmlType {
            /// Every type that this version knows.
            pub const KNOWN: &[GgmlType] = &[$(GgmlType::$variant),*];

            /// The type with this number in the file.
            #[must_use]
            pub fn from_id(id: u32) -> Self {
                match id {
                    $($id => Self::$variant,)*
                    other => Self::Unknown(other),
                }
            }

            /// The type's number in the file.
            #[must_use]
            pub fn id(self) -> u32 {
                match self {
                    $(Self::$variant => $id,)*
                    Self::Unknown(id) => id,
                }
            }

            /// Elements and bytes of one block, or `None` for an unknown type.
            #[must_use]
            pub fn block(self) -> Option<Block> {
                match self {
                    $(Self::$variant => Some(Block { elements: $elements, bytes: $bytes }),)*
                    Self::Unknown(_) => None,
                }
            }
        }

        impl fmt::Display for GgmlType {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$variant => f.write_str($name),)*
                    Self::Unknown(id) => write!(f, "unknown type {id}"),
                }
            }
        }
    };
}

/// Size of the smallest piece of a row that is stored as a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Elements in a block.
    pub elements: u64,
    /// Bytes of a block.
    pub bytes: u64,
}

ggml_types! {
    0 F32 "F32" 1 4,
    1 F16 "F16" 1 2,
    2 Q4_0 "Q4_0" 32 18,
    3 Q4_1 "Q4_1" 32 20,
    6 Q5_0 "Q5_0" 32 22,
    7 Q5_1 "Q5_1" 32 24,
    8 Q8_0 "Q8_0" 32 34,
    9 Q8_1 "Q8_1" 32 36,
    10 Q2_K "Q2_K" 256 84,
    11 Q3_K "Q3_K" 256 110,
    12 Q4_K "Q4_K" 256 144,
    13 Q5_K "Q5_K" 256 176,
    14 Q6_K "Q6_K" 256 210,
    15 Q8_K "Q8_K" 256 292,
    16 IQ2_XXS "IQ2_XXS" 256 66,
    17 IQ2_XS "IQ2_XS" 256 74,
    18 IQ3_XXS "IQ3_XXS" 256 98,
    19 IQ1_S "IQ1_S" 256 50,
    20 IQ4_NL "IQ4_NL" 32 18,
    21 IQ3_S "IQ3_S" 256 110,
    22 IQ2_S "IQ2_S" 256 82,
    23 IQ4_XS "IQ4_XS" 256 136,
    24 I8 "I8" 1 1,
    25 I16 "I16" 1 2,
    26 I32 "I32" 1 4,
    27 I64 "I64" 1 8,
    28 F64 "F64" 1 8,
    29 IQ1_M "IQ1_M" 256 56,
    30 BF16 "BF16" 1 2,
    34 TQ1_0 "TQ1_0" 256 54,
    35 TQ2_0 "TQ2_0" 256 66,
    39 MXFP4 "MXFP4" 32 17,
    40 NVFP4 "NVFP4" 64 36,
    41 Q1_0 "Q1_0" 128 18,
    42 Q2_0 "Q2_0" 64 18,
}
