//! Owns the metadata of a model: keys with values, in file order, and typed access to them.
//! What the keys mean for a model is in `shape`.

use std::collections::HashMap;

use crate::error::KeyError;
use crate::value::{Array, StringArray, Value};

/// Keys and values in the order of the file. Each key occurs once.
#[derive(Debug, Clone, Default)]
pub struct Metadata {
    entries: Vec<(String, Value)>,
    /// Place of each key in `entries`. For look-up only, never iterated.
    places: HashMap<String, usize>,
}

impl PartialEq for Metadata {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries
    }
}

impl Metadata {
    /// No keys.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when there are no keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Keys and values in file order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(k, v)| (k.as_str(), v))
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.places.get(key).map(|&i| &self.entries[i].1)
    }

    /// True when the key is there.
    #[must_use]
    pub fn contains(&self, key: &str) -> bool {
        self.places.contains_key(key)
    }

    /// Sets a key: in its old place when it is there, else at the end. Returns the old value.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<Value>) -> Option<Value> {
        let key = key.into();
        if let Some(&i) = self.places.get(&key) {
            return Some(std::mem::replace(&mut self.entries[i].1, value.into()));
        }
        self.places.insert(key.clone(), self.entries.len());
        self.entries.push((key, value.into()));
        None
    }

    /// Takes a key out and returns its value. Costs time in proportion to the number of keys.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let place = self.places.remove(key)?;
        let (_, value) = self.entries.remove(place);
        for (i, (key, _)) in self.entries.iter().enumerate().skip(place) {
            if let Some(p) = self.places.get_mut(key) {
                *p = i;
            }
        }
        Some(value)
    }

    /// The value of a key that must be there.
    ///
    /// # Errors
    /// [`KeyError::Missing`].
    pub fn require(&self, key: &str) -> Result<&Value, KeyError> {
        self.get(key).ok_or_else(|| KeyError::Missing {
            key: key.to_owned(),
        })
    }

    /// An unsigned integer, from whichever integer type holds it.
    ///
    /// # Errors
    /// When the key is missing, not an integer, or negative.
    pub fn u64(&self, key: &str) -> Result<u64, KeyError> {
        let value = self.require(key)?;
        value
            .to_u64()
            .ok_or_else(|| wrong_type(key, "an unsigned integer", value))
    }

    /// An unsigned integer of at most 32 bits, from whichever integer type holds it.
    ///
    /// # Errors
    /// As [`Metadata::u64`], or when it is too large.
    pub fn u32(&self, key: &str) -> Result<u32, KeyError> {
        let value = self.u64(key)?;
        u32::try_from(value).map_err(|_| KeyError::BadValue {
            key: key.to_owned(),
            why: format!("is too large: {value}"),
        })
    }

    /// A number from either float type.
    ///
    /// # Errors
    /// When the key is missing or not a float.
    pub fn f64(&self, key: &str) -> Result<f64, KeyError> {
        let value = self.require(key)?;
        value
            .to_f64()
            .ok_or_else(|| wrong_type(key, "a float", value))
    }

    /// A truth value.
    ///
    /// # Errors
    /// When the key is missing or of another type.
    pub fn bool(&self, key: &str) -> Result<bool, KeyError> {
        match self.require(key)? {
            Value::Bool(v) => Ok(*v),
            other => Err(wrong_type(key, "a bool", other)),
        }
    }

    /// A string.
    ///
    /// # Errors
    /// When the key is missing or of another type.
    pub fn str(&self, key: &str) -> Result<&str, KeyError> {
        match self.require(key)? {
            Value::String(v) => Ok(v),
            other => Err(wrong_type(key, "a string", other)),
        }
    }

    /// An array of any element type.
    ///
    /// # Errors
    /// When the key is missing or not an array.
    pub fn array(&self, key: &str) -> Result<&Array, KeyError> {
        match self.require(key)? {
            Value::Array(v) => Ok(v),
            other => Err(wrong_type(key, "an array", other)),
        }
    }

    /// An array of strings.
    ///
    /// # Errors
    /// When the key is missing or of another type.
    pub fn strings(&self, key: &str) -> Result<&StringArray, KeyError> {
        match self.require(key)? {
            Value::Array(Array::String(v)) => Ok(v),
            other => Err(wrong_type(key, "an array of strings", other)),
        }
    }
}

impl<K: Into<String>, V: Into<Value>> FromIterator<(K, V)> for Metadata {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(iter: I) -> Self {
        let mut out = Self::new();
        for (key, value) in iter {
            out.set(key, value);
        }
        out
    }
}

/// Turns a missing key into `None` and keeps every other error.
///
/// # Errors
/// Every error but [`KeyError::Missing`].
pub fn optional<T>(result: Result<T, KeyError>) -> Result<Option<T>, KeyError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(KeyError::Missing { .. }) => Ok(None),
        Err(other) => Err(other),
    }
}

pub(crate) fn wrong_type(key: &str, wanted: &'static str, found: &Value) -> KeyError {
    KeyError::WrongType {
        key: key.to_owned(),
        wanted,
        found: found.value_type(),
    }
}
