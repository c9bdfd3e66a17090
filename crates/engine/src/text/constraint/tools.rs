//! Grammars (in llguidance's Lark) for JSON answers and for tool calls, forced or begun by the model.

mod opened;

use serde_json::{Value, json};

use crate::{Chat, Error, Format, Tool, ToolChoice};

use super::super::dialect::{CallSyntax, Dialect, HERMES};
use super::schema::{self, Strictness};
use super::{Vocabulary, forces_calls};
pub(super) use opened::opened;

/// Calls in one forced answer or list: enough for any program, an end for a model that can't stop.
const CALLS_MAX: usize = 16;
/// Tools that a grammar may choose from.
const TOOLS_MAX: usize = 512;

/// Where a schema in the request stands, for errors.
const FORMAT_FIELD: &str = "response_format.json_schema.schema";

/// The grammar for a request in Lark; `None` if the answer is free.
pub(super) fn grammar(
    format: &Format,
    chat: &Chat,
    dialect: Dialect,
    vocabulary: &Vocabulary,
) -> Result<Option<String>, Error> {
    let json = match format {
        Format::JsonObject => Some(json!({"type": "object"})),
        Format::JsonSchema(schema) => Some(schema.clone()),
        Format::Text | Format::Grammar(_) => None,
    };
    let forced = forces_calls(chat);
    let offered = !chat.tools.is_empty() && chat.tool_choice != ToolChoice::None;
    if json.is_none() && !forced {
        return Ok(None);
    }
    let json = match json {
        Some(schema) if !forced => {
            Some(schema::prepared(&schema, FORMAT_FIELD, Strictness::Exact)?)
        }
        _ => None,
    };
    let calls = if forced || offered {
        call_schemas(chat)?
    } else {
        Vec::new()
    };
    let parallel = chat.parallel_tool_calls;
    Ok(Some(match dialect.calls {
        CallSyntax::Harmony => harmony(json.as_ref(), &calls, parallel, vocabulary),
        _ => plain(json.as_ref(), &calls, parallel, dialect.calls, vocabulary),
    }))
}

/// Turns llguidance's refusal into an error at the field that caused it.
pub(super) fn blame(format: &Format, chat: &Chat, reason: &str, vocabulary: &Vocabulary) -> Error {
    const MARK: &str = "failed to compile JSON schema: ";
    let reason = reason.rsplit(MARK).next().unwrap_or(reason).trim();
    if !forces_calls(chat) && matches!(format, Format::JsonObject | Format::JsonSchema(_)) {
        let alone = match format {
            Format::JsonSchema(schema) => schema::prepared(schema, FORMAT_FIELD, Strictness::Exact),
            _ => Ok(json!({})),
        };
        let fails = alone.is_ok_and(|schema| {
            vocabulary
                .compile(&format!("start: %json {schema}\n"))
                .is_err()
        });
        if fails {
            return Error::invalid(FORMAT_FIELD, reason);
        }
    }
    for (index, tool) in chat.tools.iter().enumerate() {
        let field = parameters_field(index);
        let fails = schema::arguments(tool.parameters.as_ref(), &field).is_ok_and(|schema| {
            vocabulary
                .compile(&format!("start: %json {schema}\n"))
                .is_err()
        });
        if fails {
            return Error::invalid(field, reason);
        }
    }
    Error::invalid("response_format", reason)
}

fn parameters_field(index: usize) -> String {
    format!("tools[{index}].function.parameters")
}

/// A tool that may be called, with its schema ready for llguidance.
struct Callable<'a> {
    tool: &'a Tool,
    schema: Value,
}

fn call_schemas(chat: &Chat) -> Result<Vec<Callable<'_>>, Error> {
    if chat.tools.len() > TOOLS_MAX {
        return Err(Error::invalid(
            "tools",
            format!(
                "{} tools, at most {TOOLS_MAX} can be enforced",
                chat.tools.len()
            ),
        ));
    }
    let mut callables = Vec::new();
    for (index, tool) in chat.tools.iter().enumerate() {
        if matches!(&chat.tool_choice, ToolChoice::Named(name) if *name != tool.name) {
            continue;
        }
        callables.push(Callable {
            tool,
            schema: schema::arguments(tool.parameters.as_ref(), &parameters_field(index))?,
        });
    }
    if let (ToolChoice::Named(name), true) = (&chat.tool_choice, callables.is_empty()) {
        return Err(Error::invalid(
            "tool_choice",
            format!("there is no tool named `{name}`"),
        ));
    }
    Ok(callables)
}

/// A sequence of texts and markers as Lark.
struct Sequence<'a> {
    vocabulary: &'a Vocabulary,
    out: String,
    text: String,
}

impl<'a> Sequence<'a> {
    fn new(vocabulary: &'a Vocabulary) -> Self {
        Self {
            vocabulary,
            out: String::new(),
            text: String::new(),
        }
    }

    fn text(mut self, text: &str) -> Self {
        self.text.push_str(text);
        self
    }

    /// A marker: the control token of that name, if there is one, else its text.
    fn marker(mut self, marker: &str) -> Self {
        match self.vocabulary.special_token(marker) {
            Some(token) => {
                self.flush();
                self.out.push_str(&format!("<[{token}]> "));
                self
            }
            None => self.text(marker),
        }
    }

    fn raw(mut self, lark: &str) -> Self {
        self.flush();
        self.out.push_str(lark);
        self.out.push(' ');
        self
    }

    fn flush(&mut self) {
        if !self.text.is_empty() {
            self.out.push_str(&literal(&self.text));
            self.out.push(' ');
            self.text.clear();
        }
    }

    fn end(mut self) -> String {
        self.flush();
        self.out
    }
}

/// A Lark literal: its escapes are JSON's.
fn literal(text: &str) -> String {
    Value::from(text).to_string()
}

fn plain(
    json: Option<&Value>,
    calls: &[Callable<'_>],
    parallel: bool,
    syntax: CallSyntax,
    vocabulary: &Vocabulary,
) -> String {
    let mut starts = Vec::new();
    let mut rules = String::new();
    if let Some(schema) = json {
        starts.push("answer");
        rules.push_str(&format!("answer: %json {schema}\n"));
    }
    if !calls.is_empty() {
        starts.push("calls");
        rules.push_str(&call_rules(calls, parallel, syntax, vocabulary));
    }
    format!("start: {}\n{rules}", starts.join(" | "))
}

fn call_rules(
    calls: &[Callable<'_>],
    parallel: bool,
    syntax: CallSyntax,
    vocabulary: &Vocabulary,
) -> String {
    let (open, close, bare) = match syntax {
        CallSyntax::Json { open, close, bare } => (open, close, bare),
        _ => return call_rules(calls, parallel, HERMES, vocabulary),
    };
    let new = || Sequence::new(vocabulary);
    let hermes = open.first() == Some(&"<tool_call>");
    // Before and after each call, before and after them all, between two.
    let (before, after) = if hermes {
        (
            new().marker("<tool_call>").text("\n"),
            new().text("\n").marker("</tool_call>"),
        )
    } else {
        (new(), new())
    };
    let (first, last, between) = match (hermes, bare) {
        (true, _) => (new(), new(), "\n"),
        (_, true) => (new(), new(), "; "),
        _ => {
            let first = open
                .iter()
                .fold(None, |first, marker| first.or(Some(*marker)));
            let first = new().marker(first.unwrap_or_default()).text("[");
            // Only these end their lists with a marker of their own.
            let last = match close.first() {
                Some(close @ (&"</TOOLCALL>" | &"</tool_calls>")) => new().text("]").marker(close),
                _ => new().text("]"),
            };
            (first, last, ", ")
        }
    };
    let (before, after) = (before.end(), after.end());
    let (mut rules, one) = objects(calls, bare, vocabulary);
    rules.push_str(&format!("call: {before}({one}) {after}\n"));
    let more = if parallel {
        format!("({} call){{0,{}}}", literal(between), CALLS_MAX - 1)
    } else {
        String::new()
    };
    rules.push_str(&format!(
        "calls: {}call {more} {}\n",
        first.end(),
        last.end()
    ));
    rules
}

/// Rules `call_N` for the calls' objects and `arguments_N` for what is in them, and the choice among the
/// objects.
fn objects(calls: &[Callable<'_>], bare: bool, vocabulary: &Vocabulary) -> (String, String) {
    let key = if bare { "parameters" } else { "arguments" };
    let mut rules = String::new();
    let mut names = Vec::new();
    for (index, callable) in calls.iter().enumerate() {
        let name = Value::from(callable.tool.name.as_str());
        let object = Sequence::new(vocabulary)
            .text(&format!("{{\"name\": {name}, \"{key}\": "))
            .raw(&format!("arguments_{index}"))
            .text("}")
            .end();
        let schema = &callable.schema;
        rules.push_str(&format!("arguments_{index}: %json {schema}\n"));
        rules.push_str(&format!("call_{index}: {object}\n"));
        names.push(format!("call_{index}"));
    }
    (rules, names.join(" | "))
}

fn harmony(
    json: Option<&Value>,
    calls: &[Callable<'_>],
    parallel: bool,
    vocabulary: &Vocabulary,
) -> String {
    let new = || Sequence::new(vocabulary);
    let mut starts = Vec::new();
    let mut rules = String::new();
    if let Some(schema) = json {
        starts.push("answer".to_owned());
        let format = new().text(" ").marker("<|constrain|>").text("json").end();
        rules.push_str(&format!(
            "answer: {} ({format})? {} %json {schema}\n",
            new().marker("<|channel|>").text("final").end(),
            new().marker("<|message|>").end(),
        ));
    }
    for (index, callable) in calls.iter().enumerate() {
        let head = new()
            .marker("<|channel|>")
            .text(&format!("commentary to=functions.{} ", callable.tool.name))
            .marker("<|constrain|>")
            .text("json")
            .marker("<|message|>")
            .raw(&format!("%json {}", callable.schema))
            .end();
        rules.push_str(&format!("call_{index}: {head}\n"));
        starts.push(format!("call_{index}"));
    }
    // A further call would need `<|call|>`, which ends generation: there is only ever one.
    let _ = parallel;
    let analysis = if vocabulary.special_token("<|end|>").is_some() {
        let before = new()
            .marker("<|channel|>")
            .text("analysis")
            .marker("<|message|>")
            .end();
        let after = new()
            .marker("<|end|>")
            .marker("<|start|>")
            .text("assistant")
            .end();
        rules.push_str(&format!("analysis: {before} /(?s:.+)/ {after}\n"));
        "analysis? "
    } else {
        ""
    };
    format!("start: {analysis}({})\n{rules}", starts.join(" | "))
}
