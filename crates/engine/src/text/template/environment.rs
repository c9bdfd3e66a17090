//! The Jinja that templates are written in: Hugging Face's functions, bounded.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{Environment, ErrorKind};
use thiserror::Error as ThisError;

use super::compiled::COSTLY;
use super::python;

/// Work that one rendering may do. minijinja charges one unit per instruction and per 64 bytes
/// made, so this also bounds memory (about 128 MiB). A 100,000-token conversation needs a tenth.
const FUEL_MAX: u64 = 2_000_000;
/// Nesting of macros and includes; real templates stay under 20.
const RECURSION_MAX: usize = 200;

/// An environment without templates.
pub(super) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(FUEL_MAX));
    environment.set_recursion_limit(RECURSION_MAX);
    environment.set_syntax(
        SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()
            .unwrap_or_default(),
    );
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_formatter(python::write);
    environment.add_filter("tojson", python::to_json);
    environment.add_filter("string", |value: Value| python::text(&value));
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", python::strftime_now);
    environment
}

/// What a template says when it refuses a conversation.
fn raise_exception(message: String) -> Result<Value, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, message).with_source(Refused))
}

/// Marks errors that the template raised itself.
#[derive(Debug, ThisError)]
#[error("refused by the template")]
struct Refused;

/// What a conversation is told that can't be rendered.
pub(super) fn refusal(error: &minijinja::Error) -> String {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = source {
        if cause.downcast_ref::<Refused>().is_some() {
            let said = error.detail().unwrap_or("no reason given");
            return format!("the model's chat template refuses this conversation: {said}");
        }
        source = cause.source();
    }
    match error.kind() {
        ErrorKind::OutOfFuel => COSTLY.to_owned(),
        _ => format!(
            "the model's chat template fails on this conversation: {}",
            describe(error)
        ),
    }
}

/// An error with its line.
pub(super) fn describe(error: &minijinja::Error) -> String {
    match error.line() {
        Some(line) => format!("{error} (line {line})"),
        None => error.to_string(),
    }
}

/// Hugging Face marks the assistant's text with `{% generation %}` blocks, which plain Jinja
/// doesn't know; they become blocks that are always taken.
pub(super) fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let Some(length) = rest[at..].find("%}") else {
            break;
        };
        let tag = &rest[at + 2..at + length];
        let word = tag.trim_matches(['-', '+']).trim();
        out.push_str(&rest[..at + 2]);
        match word {
            "generation" => out.push_str(&tag.replacen("generation", "if true", 1)),
            "endgeneration" => out.push_str(&tag.replacen("endgeneration", "endif", 1)),
            _ => out.push_str(tag),
        }
        rest = &rest[at + length..];
    }
    out.push_str(rest);
    out
}
