//! JSON schemas from requests: checked for size before anything is built from them.

use serde_json::{Map, Value, json};

use crate::Error;

/// Deepest nesting of a schema.
const DEPTH_MAX: usize = 64;
/// Values in a schema, all kinds together. The largest public schemas have about 20,000.
const VALUES_MAX: usize = 50_000;
/// Bytes of all texts in a schema.
const TEXT_BYTES_MAX: usize = 1 << 20;
/// Longest regular expression, bytes.
const PATTERN_BYTES_MAX: usize = 4096;
/// Sum over all objects of the square of their optional properties: any of them may follow any
/// other, so the grammar grows that fast. Allows one object with 700.
const OPTIONAL_PAIRS_MAX: usize = 500_000;
/// Largest count of items, properties or characters that can be enforced exactly.
const COUNT_MAX: u64 = 100_000;
/// Optional white space between JSON tokens: one space, or a line break with indentation. A
/// model can't get lost in blank space.
const WHITE_SPACE: &str = r"\x20|\x0A[\x20\x09]{0,20}";

/// How strictly a schema is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strictness {
    /// Keywords that can't be enforced are errors.
    Exact,
    /// They are ignored.
    Lenient,
}

/// `schema` with our options, ready for llguidance; errors name `field`.
pub(super) fn prepared(
    schema: &Value,
    field: &str,
    strictness: Strictness,
) -> Result<Value, Error> {
    let mut budget = Budget {
        values: VALUES_MAX,
        text_bytes: TEXT_BYTES_MAX,
        optional_pairs: OPTIONAL_PAIRS_MAX,
    };
    check(schema, 0, &mut budget).map_err(|reason| Error::invalid(field, reason))?;
    let mut object = match schema {
        Value::Object(object) => object.clone(),
        Value::Bool(true) => Map::new(),
        _ => return Err(Error::invalid(field, "must be a JSON object")),
    };
    // Also overrides options that came with the request.
    object.insert(
        "x-guidance".into(),
        json!({
            "whitespace_pattern": WHITE_SPACE,
            "coerce_one_of": true,
            "lenient": strictness == Strictness::Lenient,
        }),
    );
    Ok(Value::Object(object))
}

/// The schema of a tool's arguments: always an object.
pub(super) fn arguments(parameters: Option<&Value>, field: &str) -> Result<Value, Error> {
    let mut schema = prepared(parameters.unwrap_or(&json!({})), field, Strictness::Lenient)?;
    if let Some(object) = schema.as_object_mut()
        && !object.contains_key("$ref")
        && !object.contains_key("anyOf")
        && !object.contains_key("allOf")
        && !object.contains_key("oneOf")
    {
        object.insert("type".into(), "object".into());
    }
    Ok(schema)
}

struct Budget {
    values: usize,
    text_bytes: usize,
    optional_pairs: usize,
}

fn check(value: &Value, depth: usize, budget: &mut Budget) -> Result<(), String> {
    if depth > DEPTH_MAX {
        return Err(format!("is nested more than {DEPTH_MAX} deep"));
    }
    budget.values = budget
        .values
        .checked_sub(1)
        .ok_or_else(|| format!("has more than {VALUES_MAX} values"))?;
    match value {
        Value::String(text) => spend(budget, text.len()),
        Value::Array(items) => items
            .iter()
            .try_for_each(|item| check(item, depth + 1, budget)),
        Value::Object(entries) => {
            spend_optional(budget, entries)?;
            entries.iter().try_for_each(|(key, entry)| {
                spend(budget, key.len())?;
                check_keyword(key, entry)?;
                check(entry, depth + 1, budget)
            })
        }
        _ => Ok(()),
    }
}

fn spend_optional(budget: &mut Budget, schema: &Map<String, Value>) -> Result<(), String> {
    let properties = schema
        .get("properties")
        .and_then(Value::as_object)
        .map_or(0, Map::len);
    let required = schema
        .get("required")
        .and_then(Value::as_array)
        .map_or(0, Vec::len);
    let optional = properties.saturating_sub(required);
    budget.optional_pairs = budget
        .optional_pairs
        .checked_sub(optional.saturating_mul(optional))
        .ok_or("has too many optional properties; hint: name them in `required`")?;
    Ok(())
}

fn spend(budget: &mut Budget, bytes: usize) -> Result<(), String> {
    budget.text_bytes = budget
        .text_bytes
        .checked_sub(bytes)
        .ok_or_else(|| format!("has more than {TEXT_BYTES_MAX} bytes of text"))?;
    Ok(())
}

fn check_keyword(key: &str, entry: &Value) -> Result<(), String> {
    match (key, entry) {
        ("pattern", Value::String(text)) if text.len() > PATTERN_BYTES_MAX => Err(format!(
            "has a pattern of more than {PATTERN_BYTES_MAX} bytes"
        )),
        (
            "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" | "maxProperties",
            Value::Number(number),
        ) if number
            .as_f64()
            .is_some_and(|count| count > COUNT_MAX as f64) =>
        {
            Err(format!(
                "`{key}` is {number}, at most {COUNT_MAX} can be enforced; hint: leave it out"
            ))
        }
        _ => Ok(()),
    }
}
