//! Owns one row of the tensor table: name, shape, type, place and size. It holds no data.

use crate::error::KeyError;
use crate::ggml_type::GgmlType;
use crate::limits::DIMS_MAX;

/// A tensor as the table describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name, for instance `blk.0.attn_q.weight`.
    pub name: String,
    /// Elements in each dimension, the row length first (ggml's order: the reverse of NumPy's).
    /// At most four; none means a single element.
    pub dims: Vec<u64>,
    /// How the elements are stored.
    pub ggml_type: GgmlType,
    /// Bytes from the start of the data section to the tensor's first byte.
    pub offset: u64,
}

impl TensorInfo {
    /// Number of elements, or `None` when it does not fit in 63 bits.
    #[must_use]
    pub fn elements(&self) -> Option<u64> {
        elements(&self.dims)
    }

    /// Bytes of the tensor's data, without padding.
    ///
    /// # Errors
    /// [`KeyError::UnknownTensorType`] when the type's size is not known.
    pub fn size_bytes(&self) -> Result<u64, KeyError> {
        let unknown = || KeyError::UnknownTensorType {
            tensor: self.name.clone(),
            id: self.ggml_type.id(),
        };
        self.ggml_type.block().ok_or_else(unknown)?;
        size_bytes(&self.dims, self.ggml_type).map_err(|why| KeyError::BadValue {
            key: self.name.clone(),
            why,
        })
    }

    /// Bytes of one row (the first dimension).
    ///
    /// # Errors
    /// As [`TensorInfo::size_bytes`].
    pub fn row_bytes(&self) -> Result<u64, KeyError> {
        let row = Self {
            dims: self.dims.iter().take(1).copied().collect(),
            ..self.clone()
        };
        row.size_bytes()
    }

    /// The layer that the tensor belongs to: `i` of a name `blk.i.…`.
    #[must_use]
    pub fn layer(&self) -> Option<u32> {
        self.name
            .strip_prefix("blk.")?
            .split('.')
            .next()?
            .parse()
            .ok()
    }
}

/// Product of the dimensions, or `None` over 2^63 - 1, which is ggml's own maximum.
pub(crate) fn elements(dims: &[u64]) -> Option<u64> {
    let product = dims.iter().try_fold(1u64, |n, &d| n.checked_mul(d))?;
    // A zero must not hide that the others overflow: ggml multiplies them one by one.
    let nonzero = dims
        .iter()
        .try_fold(1u64, |n, &d| n.checked_mul(d.max(1)))?;
    (nonzero <= i64::MAX as u64).then_some(product)
}

/// Bytes of a tensor of a known type, or what is wrong with its shape.
pub(crate) fn size_bytes(dims: &[u64], ggml_type: GgmlType) -> Result<u64, String> {
    if dims.len() > DIMS_MAX {
        return Err(format!(
            "has {} dimensions, over the maximum of {DIMS_MAX}",
            dims.len()
        ));
    }
    let elements = elements(dims).ok_or_else(|| format!("has an impossible shape {dims:?}"))?;
    let Some(block) = ggml_type.block() else {
        return Err(format!("is of {ggml_type}"));
    };
    let row = dims.first().copied().unwrap_or(1);
    if row % block.elements != 0 {
        return Err(format!(
            "has rows of {row} elements, not a multiple of {} as {ggml_type} needs",
            block.elements
        ));
    }
    let bytes = (elements / block.elements)
        .checked_mul(block.bytes)
        .filter(|&b| b <= i64::MAX as u64);
    bytes.ok_or_else(|| format!("has an impossible shape {dims:?}"))
}
