//! From wire types to the engine's types, with every value checked.
//!
//! Errors name the field by its path in the request. What depends on the model's own limits
//! (prompt length, grammar, schema) is left to the engine.

pub(crate) mod chat;
pub(crate) mod completion;
pub(crate) mod sampling;

use std::ops::RangeInclusive;

use crate::error::ApiError;

/// `value` if it lies in `range`.
pub(crate) fn in_range<T: PartialOrd + std::fmt::Display>(
    value: Option<T>,
    range: RangeInclusive<T>,
    param: &str,
) -> Result<Option<T>, ApiError> {
    match value {
        Some(value) if !range.contains(&value) => Err(ApiError::invalid(
            param,
            format!(
                "{param}: {value} is outside {} to {}",
                range.start(),
                range.end()
            ),
        )),
        other => Ok(other),
    }
}

/// A whole number of `range`, which must lie within u32.
pub(crate) fn count(
    value: Option<i64>,
    range: RangeInclusive<i64>,
    param: &str,
) -> Result<Option<u32>, ApiError> {
    Ok(in_range(value, range, param)?.map(|value| u32::try_from(value).unwrap_or(0)))
}
