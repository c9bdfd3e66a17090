//! Turns a conversation into the variables that templates read, and rewrites what a template
//! can't show (tools, system messages) as text that it can.

use std::collections::BTreeMap;

use minijinja::value::Value;
use serde_json::{Map, json};

use crate::text::literal::{Author, Literals};
use crate::{Message, Role, Tool, ToolCall};

/// How one template wants its variables.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Quirks {
    /// Arguments of earlier calls as JSON text instead of objects.
    pub(super) text_arguments: bool,
    /// `content: none` on messages that only call tools.
    pub(super) null_content: bool,
    /// Call identifiers must have nine letters or digits.
    pub(super) short_call_ids: bool,
    /// Knows the role `developer`.
    pub(super) developer_role: bool,
}

/// What a template sees.
pub(super) struct Variables<'a> {
    /// Marked, as [`marked_messages`] does it.
    pub(super) messages: &'a [Message],
    /// Marked, as [`marked_tools`] does it.
    pub(super) tools: &'a [Tool],
    pub(super) kwargs: &'a Map<String, serde_json::Value>,
    pub(super) bos: &'a str,
    pub(super) eos: &'a str,
}

impl Variables<'_> {
    /// The template's context, with `literals` marked in what is not marked yet.
    pub(super) fn to_value(&self, quirks: Quirks, literals: &Literals) -> Value {
        let tools = if self.tools.is_empty() {
            Value::from(())
        } else {
            self.tools
                .iter()
                .map(|tool| value(&function(tool)))
                .collect()
        };
        let names = call_names(self.messages);
        let messages: Vec<Value> = self
            .messages
            .iter()
            .map(|message| value(&message_json(message, &names, quirks, literals)))
            .collect();
        let fixed = [
            ("messages", Value::from(messages)),
            ("tools", tools),
            ("documents", Value::from(())),
            ("add_generation_prompt", Value::from(true)),
            ("bos_token", Value::from(self.bos)),
            ("eos_token", Value::from(self.eos)),
        ];
        let extra = self
            .kwargs
            .iter()
            .filter(|(name, _)| !fixed.iter().any(|(fixed, _)| fixed == name))
            .map(|(name, json)| {
                let marked = marked_json(json, literals);
                (name.clone(), value(&marked))
            });
        // Collected to a map first: a `Value` collects pairs to a sequence.
        let variables: std::collections::BTreeMap<String, Value> = fixed
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .chain(extra)
            .collect();
        Value::from(variables)
    }
}

/// `messages` with `literals` marked, but for what is changed before a template sees it:
/// identifiers and the arguments of calls.
pub(super) fn marked_messages(messages: &[Message], literals: &Literals) -> Vec<Message> {
    let marked = |message: &Message| {
        let author = author(message.role);
        let mark = |text: &str| literals.mark(text, author).into_owned();
        // Templates write the markers around names themselves.
        let name = |text: &str| literals.mark(text, Author::Caller).into_owned();
        let call = |call: &ToolCall| ToolCall {
            name: name(&call.name),
            ..call.clone()
        };
        Message {
            role: message.role,
            content: mark(&message.content),
            name: message.name.as_deref().map(name),
            reasoning: message.reasoning.as_deref().map(mark),
            tool_calls: message.tool_calls.iter().map(call).collect(),
            tool_call_id: message.tool_call_id.clone(),
        }
    };
    messages.iter().map(marked).collect()
}

/// `tools` with `literals` marked.
pub(super) fn marked_tools(tools: &[Tool], literals: &Literals) -> Vec<Tool> {
    let mark = |text: &str| literals.mark(text, Author::Caller).into_owned();
    let json = |json: &serde_json::Value| marked_json(json, literals);
    let marked = |tool: &Tool| Tool {
        name: mark(&tool.name),
        description: tool.description.as_deref().map(mark),
        parameters: tool.parameters.as_ref().map(json),
    };
    tools.iter().map(marked).collect()
}

fn marked_json(json: &serde_json::Value, literals: &Literals) -> serde_json::Value {
    match json {
        serde_json::Value::String(text) => literals.mark(text, Author::Caller).into(),
        serde_json::Value::Array(items) => items
            .iter()
            .map(|item| marked_json(item, literals))
            .collect(),
        serde_json::Value::Object(entries) => entries
            .iter()
            .map(|(key, entry)| {
                let key = literals.mark(key, Author::Caller).into_owned();
                (key, marked_json(entry, literals))
            })
            .collect(),
        other => other.clone(),
    }
}

fn author(role: Role) -> Author {
    match role {
        Role::Assistant => Author::Model,
        Role::System | Role::Developer | Role::User | Role::Tool => Author::Caller,
    }
}

/// A tool in OpenAI's form.
fn function(tool: &Tool) -> serde_json::Value {
    let mut function = Map::new();
    function.insert("name".into(), tool.name.clone().into());
    if let Some(description) = &tool.description {
        function.insert("description".into(), description.clone().into());
    }
    let parameters = tool
        .parameters
        .clone()
        .unwrap_or_else(|| json!({"type": "object", "properties": {}}));
    function.insert("parameters".into(), parameters);
    json!({"type": "function", "function": function})
}

/// Names of earlier calls by their identifier: tool results often lack the name.
fn call_names(messages: &[Message]) -> BTreeMap<&str, &str> {
    messages
        .iter()
        .flat_map(|message| &message.tool_calls)
        .map(|call| (call.id.as_str(), call.name.as_str()))
        .collect()
}

fn message_json(
    message: &Message,
    names: &BTreeMap<&str, &str>,
    quirks: Quirks,
    literals: &Literals,
) -> serde_json::Value {
    let mut out = Map::new();
    out.insert("role".into(), role(message.role, quirks).into());
    let content =
        if quirks.null_content && message.content.is_empty() && !message.tool_calls.is_empty() {
            serde_json::Value::Null
        } else {
            message.content.clone().into()
        };
    out.insert("content".into(), content);
    if let Some(reasoning) = &message.reasoning {
        out.insert("reasoning_content".into(), reasoning.clone().into());
        // Harmony's templates know it by this name.
        out.insert("thinking".into(), reasoning.clone().into());
    }
    if !message.tool_calls.is_empty() {
        let calls = message
            .tool_calls
            .iter()
            .map(|call| call_json(call, quirks, literals));
        out.insert("tool_calls".into(), calls.collect());
    }
    let mut name = message.name.as_deref();
    if let Some(id) = &message.tool_call_id {
        name = name.or_else(|| names.get(id.as_str()).copied());
        let id = call_id(id, quirks);
        let id = literals.mark(&id, Author::Caller);
        out.insert("tool_call_id".into(), id.into());
    }
    if let Some(name) = name {
        out.insert("name".into(), name.into());
    }
    out.into()
}

fn role(role: Role, quirks: Quirks) -> &'static str {
    match role {
        Role::Developer if quirks.developer_role => "developer",
        Role::System | Role::Developer => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    }
}

fn call_json(call: &ToolCall, quirks: Quirks, literals: &Literals) -> serde_json::Value {
    let text = || serde_json::Value::String(call.arguments.clone());
    let arguments = if quirks.text_arguments {
        text()
    } else {
        serde_json::from_str(&call.arguments).unwrap_or_else(|_| text())
    };
    // After reading: JSON may write any character as an escape.
    let arguments = marked_json(&arguments, literals);
    json!({
        "id": literals.mark(&call_id(&call.id, quirks), Author::Caller),
        "type": "function",
        "function": {"name": call.name, "arguments": arguments},
    })
}

/// Some templates refuse identifiers that have not nine letters or digits. Others get a
/// shortened form that is the same for the same identifier.
fn call_id(id: &str, quirks: Quirks) -> String {
    let fits = id.len() == 9 && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if fits || !quirks.short_call_ids {
        return id.to_owned();
    }
    // FNV-1a, 64 bits.
    let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{:09x}", hash >> 28)
}

fn value(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(flag) => Value::from(*flag),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(integer), _) => Value::from(integer),
            (None, Some(integer)) => Value::from(integer),
            (None, None) => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => Value::from(text.as_str()),
        serde_json::Value::Array(items) => items.iter().map(value).collect::<Vec<_>>().into(),
        serde_json::Value::Object(entries) => Value::from_pairs(
            entries
                .iter()
                .map(|(key, entry)| (Value::from(key.as_str()), value(entry))),
        ),
    }
}

/// The description of tools for models whose template has no place for them: the Hermes form,
/// which many models have seen.
pub(super) fn tools_block(tools: &[Tool], parallel: bool) -> String {
    let mut block = String::from(
        "You can call functions. These are available, each described by a JSON object:\n<tools>\n",
    );
    for tool in tools {
        block.push_str(&function(tool).to_string());
        block.push('\n');
    }
    block.push_str("</tools>\n\nTo call a function, answer with its name and arguments as a JSON object in tool_call tags:\n<tool_call>\n{\"name\": \"FUNCTION\", \"arguments\": {\"ARGUMENT\": \"VALUE\"}}\n</tool_call>");
    if !parallel {
        block.push_str("\nCall at most one function at a time.");
    }
    block
}

/// Calls and results of tools as plain text, for templates without the role `tool`, with
/// `literals` marked in the arguments of calls.
pub(super) fn without_tool_roles(messages: Vec<Message>, literals: &Literals) -> Vec<Message> {
    let mut out: Vec<Message> = Vec::with_capacity(messages.len());
    let mut after_result = false;
    for mut message in messages {
        let is_result = message.role == Role::Tool;
        for call in std::mem::take(&mut message.tool_calls) {
            if !message.content.is_empty() {
                message.content.push('\n');
            }
            let name = serde_json::Value::from(call.name);
            message.content.push_str(&format!(
                "<tool_call>\n{{\"name\": {name}, \"arguments\": {}}}\n</tool_call>",
                literals.mark(&call.arguments, Author::Caller)
            ));
        }
        if is_result {
            message.role = Role::User;
            message.content = format!("<tool_response>\n{}\n</tool_response>", message.content);
            message.tool_call_id = None;
        }
        match out.last_mut() {
            // Results of parallel calls, so that roles keep alternating.
            Some(last) if is_result && after_result => {
                last.content.push('\n');
                last.content.push_str(&message.content);
            }
            _ => out.push(message),
        }
        after_result = is_result;
    }
    out
}

/// Adds `block` to the system message, or makes one.
pub(super) fn add_to_system(messages: &mut Vec<Message>, block: &str) {
    match messages.first_mut() {
        Some(first) if matches!(first.role, Role::System | Role::Developer) => {
            first.content.push_str("\n\n");
            first.content.push_str(block);
        }
        _ => messages.insert(0, Message::system(block)),
    }
}

/// Puts system messages in front of the user's next one, for templates that refuse them.
pub(super) fn merge_system(messages: &mut Vec<Message>) {
    let mut waiting = String::new();
    messages.retain_mut(|message| match message.role {
        Role::System | Role::Developer => {
            waiting.push_str(&message.content);
            waiting.push_str("\n\n");
            false
        }
        Role::User if !waiting.is_empty() => {
            message.content.insert_str(0, &waiting);
            waiting.clear();
            true
        }
        _ => true,
    });
    let rest = waiting.trim_end();
    if !rest.is_empty() {
        messages.push(Message::user(rest));
    }
}
