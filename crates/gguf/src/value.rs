//! Owns metadata values: scalars, strings and arrays as GGUF stores them, kept compact.
//! It does not read or write bytes.

use std::borrow::Cow;
use std::fmt;

/// Type of a metadata value, with its number in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
#[allow(missing_docs)]
pub enum ValueType {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    String = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl ValueType {
    /// The type with this number, if there is one.
    #[must_use]
    pub fn from_id(id: u32) -> Option<Self> {
        use ValueType::{Array, Bool, F32, F64, I8, I16, I32, I64, String, U8, U16, U32, U64};
        [
            U8, I8, U16, I16, U32, I32, F32, Bool, String, Array, U64, I64, F64,
        ]
        .get(id as usize)
        .copied()
    }

    /// Fewest bytes one value of this type takes in a file.
    #[must_use]
    pub(crate) fn bytes_min(self) -> u64 {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::String | Self::U64 | Self::I64 | Self::F64 => 8,
            Self::Array => 12,
        }
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::F32 => "f32",
            Self::Bool => "bool",
            Self::String => "string",
            Self::Array => "array",
            Self::U64 => "u64",
            Self::I64 => "i64",
            Self::F64 => "f64",
        })
    }
}

/// One metadata value.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl Value {
    /// The value's type.
    #[must_use]
    pub fn value_type(&self) -> ValueType {
        match self {
            Self::U8(_) => ValueType::U8,
            Self::I8(_) => ValueType::I8,
            Self::U16(_) => ValueType::U16,
            Self::I16(_) => ValueType::I16,
            Self::U32(_) => ValueType::U32,
            Self::I32(_) => ValueType::I32,
            Self::F32(_) => ValueType::F32,
            Self::Bool(_) => ValueType::Bool,
            Self::String(_) => ValueType::String,
            Self::Array(_) => ValueType::Array,
            Self::U64(_) => ValueType::U64,
            Self::I64(_) => ValueType::I64,
            Self::F64(_) => ValueType::F64,
        }
    }

    /// The value as an unsigned integer, whichever integer type holds it; `None` when it is
    /// negative or not an integer.
    #[must_use]
    pub fn to_u64(&self) -> Option<u64> {
        match *self {
            Self::U8(v) => Some(v.into()),
            Self::U16(v) => Some(v.into()),
            Self::U32(v) => Some(v.into()),
            Self::U64(v) => Some(v),
            Self::I8(v) => u64::try_from(v).ok(),
            Self::I16(v) => u64::try_from(v).ok(),
            Self::I32(v) => u64::try_from(v).ok(),
            Self::I64(v) => u64::try_from(v).ok(),
            _ => None,
        }
    }

    /// The value as a number, from either float type.
    #[must_use]
    pub fn to_f64(&self) -> Option<f64> {
        match *self {
            Self::F32(v) => Some(v.into()),
            Self::F64(v) => Some(v),
            _ => None,
        }
    }
}

/// An array of values of one type.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    Bool(Vec<bool>),
    String(StringArray),
    Array(Vec<Array>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F64(Vec<f64>),
}

impl Array {
    /// Type of the elements.
    #[must_use]
    pub fn element_type(&self) -> ValueType {
        match self {
            Self::U8(_) => ValueType::U8,
            Self::I8(_) => ValueType::I8,
            Self::U16(_) => ValueType::U16,
            Self::I16(_) => ValueType::I16,
            Self::U32(_) => ValueType::U32,
            Self::I32(_) => ValueType::I32,
            Self::F32(_) => ValueType::F32,
            Self::Bool(_) => ValueType::Bool,
            Self::String(_) => ValueType::String,
            Self::Array(_) => ValueType::Array,
            Self::U64(_) => ValueType::U64,
            Self::I64(_) => ValueType::I64,
            Self::F64(_) => ValueType::F64,
        }
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::U8(v) => v.len(),
            Self::I8(v) => v.len(),
            Self::U16(v) => v.len(),
            Self::I16(v) => v.len(),
            Self::U32(v) => v.len(),
            Self::I32(v) => v.len(),
            Self::F32(v) => v.len(),
            Self::Bool(v) => v.len(),
            Self::String(v) => v.len(),
            Self::Array(v) => v.len(),
            Self::U64(v) => v.len(),
            Self::I64(v) => v.len(),
            Self::F64(v) => v.len(),
        }
    }

    /// True when there are no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Element `index` as an unsigned integer, whichever integer type holds it.
    #[must_use]
    pub fn get_u64(&self, index: usize) -> Option<u64> {
        match self {
            Self::U8(v) => v.get(index).map(|&x| x.into()),
            Self::U16(v) => v.get(index).map(|&x| x.into()),
            Self::U32(v) => v.get(index).map(|&x| x.into()),
            Self::U64(v) => v.get(index).copied(),
            Self::I8(v) => v.get(index).and_then(|&x| x.try_into().ok()),
            Self::I16(v) => v.get(index).and_then(|&x| x.try_into().ok()),
            Self::I32(v) => v.get(index).and_then(|&x| x.try_into().ok()),
            Self::I64(v) => v.get(index).and_then(|&x| x.try_into().ok()),
            _ => None,
        }
    }

    /// The elements `range`, as a new array; `None` when the range is not inside this one.
    #[must_use]
    pub fn slice(&self, range: std::ops::Range<usize>) -> Option<Self> {
        macro_rules! cut {
            ($($variant:ident)*) => {
                match self {
                    $(Self::$variant(v) => Some(Self::$variant(v.get(range)?.to_vec())),)*
                    Self::String(v) => {
                        if range.start > range.end || range.end > v.len() {
                            return None;
                        }
                        let mut cut = StringArray::default();
                        range.filter_map(|i| v.bytes(i)).for_each(|s| cut.push(s));
                        Some(Self::String(cut))
                    }
                }
            };
        }
        cut!(U8 I8 U16 I16 U32 I32 F32 Bool Array U64 I64 F64)
    }

    /// The elements at these places, in this order, as a new array; `None` when one is outside.
    #[must_use]
    pub fn pick(&self, places: &[usize]) -> Option<Self> {
        macro_rules! pick {
            ($($variant:ident)*) => {
                match self {
                    $(Self::$variant(v) => Some(Self::$variant(
                        places.iter().map(|&i| v.get(i).cloned()).collect::<Option<_>>()?,
                    )),)*
                    Self::String(v) => Some(Self::String(
                        places.iter().map(|&i| v.bytes(i)).collect::<Option<_>>()?,
                    )),
                }
            };
        }
        pick!(U8 I8 U16 I16 U32 I32 F32 Bool Array U64 I64 F64)
    }
}

/// Many strings in one buffer. Token lists have hundreds of thousands of entries of a few bytes.
///
/// Entries are bytes: old vocabularies hold pieces that are not UTF-8 on their own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StringArray {
    bytes: Vec<u8>,
    /// End of each entry in `bytes`. Fits in 32 bits since a header has a smaller maximum.
    ends: Vec<u32>,
}

impl StringArray {
    /// Adds an entry at the end.
    ///
    /// # Panics
    /// When all entries together pass 4 GiB, sixteen times what a header may hold.
    pub fn push(&mut self, entry: impl AsRef<[u8]>) {
        self.bytes.extend_from_slice(entry.as_ref());
        assert!(
            self.bytes.len() <= u32::MAX as usize,
            "string array over 4 GiB"
        );
        self.ends.push(self.bytes.len() as u32);
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// True when there are no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The bytes of an entry.
    #[must_use]
    pub fn bytes(&self, index: usize) -> Option<&[u8]> {
        let end = *self.ends.get(index)? as usize;
        let start = index.checked_sub(1).map_or(0, |i| self.ends[i] as usize);
        self.bytes.get(start..end)
    }

    /// An entry as text; what is not UTF-8 in it shows as U+FFFD.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Cow<'_, str>> {
        self.bytes(index).map(String::from_utf8_lossy)
    }

    /// All entries as bytes, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.len()).map(|i| self.bytes(i).unwrap_or_default())
    }
}

impl<S: AsRef<[u8]>> FromIterator<S> for StringArray {
    fn from_iter<I: IntoIterator<Item = S>>(iter: I) -> Self {
        let mut out = Self::default();
        iter.into_iter().for_each(|s| out.push(s));
        out
    }
}

macro_rules! from_scalar {
    ($($variant:ident $t:ty),*) => {$(
        impl From<$t> for Value {
            fn from(v: $t) -> Self { Self::$variant(v) }
        }
        impl From<Vec<$t>> for Value {
            fn from(v: Vec<$t>) -> Self { Self::Array(Array::$variant(v)) }
        }
    )*};
}
from_scalar!(U8 u8, I8 i8, U16 u16, I16 i16, U32 u32, I32 i32, F32 f32, Bool bool, U64 u64, I64 i64, F64 f64);

impl From<&str> for Value {
    fn from(v: &str) -> Self {
        Self::String(v.to_owned())
    }
}
impl From<String> for Value {
    fn from(v: String) -> Self {
        Self::String(v)
    }
}
impl From<StringArray> for Value {
    fn from(v: StringArray) -> Self {
        Self::Array(Array::String(v))
    }
}
impl From<Array> for Value {
    fn from(v: Array) -> Self {
        Self::Array(v)
    }
}
