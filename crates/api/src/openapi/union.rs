//! Schemas of fields that take several JSON shapes, which a derive can't describe.
//!
//! Written as JSON schema and parsed when the description is first asked for; a test holds that
//! nothing is lost on that way.

use serde_json::{Value, json};
use utoipa::openapi::schema::Object;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::convert::sampling::{BREAKERS_MAX, STOP_CHARS_MAX, STOPS_MAX};

/// The schema that `value` spells out.
fn parsed(value: Value) -> RefOr<Schema> {
    serde_json::from_value(value).map_or_else(
        |error| {
            tracing::error!(%error, "a schema of the API description is wrong");
            RefOr::T(Schema::Object(Object::new()))
        },
        RefOr::T,
    )
}

fn either(variants: &[Value]) -> Value {
    json!({ "anyOf": variants })
}

fn null() -> Value {
    json!({ "type": "null" })
}

fn word(words: &[&str]) -> Value {
    json!({ "type": "string", "enum": words })
}

/// An object with these properties, of which `required` must be there.
fn object(properties: Value, required: &[&str]) -> Value {
    if required.is_empty() {
        json!({ "type": "object", "properties": properties })
    } else {
        json!({ "type": "object", "properties": properties, "required": required })
    }
}

/// `type: "function"`, which may be left out.
fn kind() -> Value {
    either(&[null(), word(&["function"])])
}

fn array(items: Value) -> Value {
    json!({ "type": "array", "items": items })
}

fn name() -> Value {
    json!({ "type": "string", "pattern": "^[A-Za-z0-9_.:/-]{1,128}$" })
}

fn strings_value(items_max: usize) -> Value {
    let text = json!({ "type": "string", "maxLength": STOP_CHARS_MAX });
    either(&[
        null(),
        text.clone(),
        json!({ "type": "array", "maxItems": items_max, "items": text }),
    ])
}

pub(crate) fn stop() -> RefOr<Schema> {
    parsed(strings_value(STOPS_MAX))
}

pub(crate) fn breakers() -> RefOr<Schema> {
    parsed(strings_value(BREAKERS_MAX))
}

pub(crate) fn max_tokens() -> RefOr<Schema> {
    parsed(either(&[
        null(),
        json!({ "type": "integer", "minimum": 1, "maximum": i32::MAX }),
        json!({ "type": "integer", "minimum": -1, "maximum": -1 }),
    ]))
}

pub(crate) fn logit_bias() -> RefOr<Schema> {
    parsed(json!({
        "type": ["object", "null"],
        "additionalProperties": { "type": "number", "minimum": -100, "maximum": 100 },
        "propertyNames": { "type": "string", "pattern": "^[0-9]{1,9}$" },
        "maxProperties": 1024,
    }))
}

fn schema_value() -> Value {
    json!({ "type": "object" })
}

pub(crate) fn json_schema() -> RefOr<Schema> {
    parsed(either(&[null(), schema_value()]))
}

pub(crate) fn response_format() -> RefOr<Schema> {
    let named = object(
        json!({
            "name": { "type": ["string", "null"] },
            "schema": either(&[null(), schema_value()]),
        }),
        &[],
    );
    parsed(either(&[
        null(),
        object(json!({ "type": word(&["text"]) }), &["type"]),
        object(
            json!({
                "type": word(&["json_object"]),
                "schema": either(&[null(), schema_value()]),
            }),
            &["type"],
        ),
        object(
            json!({ "type": word(&["json_schema"]), "json_schema": named }),
            &["type", "json_schema"],
        ),
    ]))
}

fn content(kinds: &[&str]) -> Value {
    let parts: Vec<Value> = kinds
        .iter()
        .map(|&kind| {
            let mut properties = json!({ "type": word(&[kind]) });
            properties[kind] = json!({ "type": "string" });
            object(properties, &["type", kind])
        })
        .collect();
    either(&[json!({ "type": "string" }), array(either(&parts))])
}

/// Arguments of a call in the conversation so far: JSON text, or the object itself.
fn arguments() -> Value {
    either(&[null(), json!({ "type": "string" }), schema_value()])
}

fn message_value() -> Value {
    let speaker = either(&[null(), json!({ "type": "string" })]);
    let instructions = object(
        json!({
            "role": word(&["system", "developer", "user"]),
            "content": content(&["text"]),
            "name": speaker,
        }),
        &["role", "content"],
    );
    let call = object(
        json!({
            "id": { "type": "string" },
            "type": kind(),
            "function": object(
                json!({ "name": { "type": "string" }, "arguments": arguments() }),
                &["name"],
            ),
        }),
        &["id", "function"],
    );
    let assistant = object(
        json!({
            "role": word(&["assistant"]),
            "content": either(&[null(), content(&["text", "refusal"])]),
            "name": speaker,
            "reasoning_content": speaker,
            "tool_calls": either(&[null(), array(call)]),
        }),
        &["role"],
    );
    let tool = object(
        json!({
            "role": word(&["tool"]),
            "content": content(&["text"]),
            "tool_call_id": { "type": "string" },
        }),
        &["role", "content", "tool_call_id"],
    );
    either(&[instructions, assistant, tool])
}

fn messages_value() -> Value {
    json!({ "type": "array", "minItems": 1, "items": message_value() })
}

pub(crate) fn messages() -> RefOr<Schema> {
    parsed(messages_value())
}

fn tools_value() -> Value {
    let function = object(
        json!({
            "name": name(),
            "description": either(&[null(), json!({ "type": "string" })]),
            "parameters": either(&[null(), schema_value()]),
        }),
        &["name"],
    );
    let tool = object(
        json!({ "type": kind(), "function": function }),
        &["function"],
    );
    either(&[
        null(),
        json!({ "type": "array", "maxItems": 128, "items": tool }),
    ])
}

pub(crate) fn tools() -> RefOr<Schema> {
    parsed(tools_value())
}

pub(crate) fn tool_choice() -> RefOr<Schema> {
    let function = object(json!({ "name": name() }), &["name"]);
    let named = object(
        json!({ "type": kind(), "function": function }),
        &["function"],
    );
    let allowed = object(
        json!({
            "mode": word(&["auto", "required"]),
            "tools": array(named.clone()),
        }),
        &["mode", "tools"],
    );
    parsed(either(&[
        null(),
        word(&["none", "auto", "required"]),
        named,
        object(
            json!({
                "type": either(&[null(), word(&["allowed_tools"])]),
                "allowed_tools": allowed,
            }),
            &["allowed_tools"],
        ),
    ]))
}

pub(crate) fn reasoning_effort() -> RefOr<Schema> {
    parsed(either(&[
        null(),
        word(&["none", "minimal", "low", "medium", "high", "xhigh"]),
    ]))
}

pub(crate) fn modalities() -> RefOr<Schema> {
    parsed(either(&[null(), array(word(&["text"]))]))
}

fn token_list() -> Value {
    array(json!({ "type": "integer", "minimum": 0, "maximum": i32::MAX }))
}

fn prompt_value(texts_max: usize, text: &Value) -> Value {
    let mut tokens = token_list();
    tokens["minItems"] = json!(1);
    either(&[
        text.clone(),
        json!({ "type": "array", "minItems": 1, "maxItems": texts_max, "items": text }),
        tokens.clone(),
        json!({ "type": "array", "minItems": 1, "maxItems": texts_max, "items": tokens }),
    ])
}

pub(crate) fn prompt() -> RefOr<Schema> {
    parsed(prompt_value(128, &json!({ "type": "string" })))
}

pub(crate) fn embedding_input() -> RefOr<Schema> {
    parsed(prompt_value(
        2048,
        &json!({ "type": "string", "minLength": 1 }),
    ))
}

pub(crate) fn encoding_format() -> RefOr<Schema> {
    parsed(either(&[null(), word(&["float", "base64"])]))
}

pub(crate) fn tokens() -> RefOr<Schema> {
    parsed(token_list())
}

/// The body of `/v1/tokenize`: one of three ways to give the text.
pub(crate) struct Tokenize;

impl PartialSchema for Tokenize {
    fn schema() -> RefOr<Schema> {
        let flag = || json!({ "type": ["boolean", "null"] });
        let with = |field: &str, schema: Value| {
            let mut properties = json!({
                "model": { "type": ["string", "null"] },
                "add_special": flag(),
                "parse_special": flag(),
                "with_pieces": flag(),
            });
            for other in ["content", "prompt", "messages"] {
                properties[other] = if other == field {
                    schema.clone()
                } else {
                    null()
                };
            }
            if field == "messages" {
                properties["tools"] = tools_value();
            }
            object(properties, &[field])
        };
        parsed(either(&[
            with("content", json!({ "type": "string" })),
            with("prompt", json!({ "type": "string" })),
            with("messages", messages_value()),
        ]))
    }
}

impl ToSchema for Tokenize {}

#[cfg(test)]
mod tests;
