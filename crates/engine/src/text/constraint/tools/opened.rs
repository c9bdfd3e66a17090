//! Grammars for calls that the model begins by itself: what follows the marker that opens one.

use crate::text::Vocabulary;
use crate::text::dialect::CallSyntax;
use crate::{Chat, Error};

use super::{CALLS_MAX, Callable, Sequence, call_schemas, literal, objects};

/// What opens calls, and what they must then be.
pub(in crate::text::constraint) struct Opened {
    /// Texts that open a call.
    pub(in crate::text::constraint) markers: &'static [&'static str],
    /// The grammar of what follows one of them.
    pub(in crate::text::constraint) lark: String,
}

/// Longest name that stands without quotes, bytes: the parser reads 256 with what may follow.
const NAME_BYTES_MAX: usize = 128;
/// Its bracket tells a call from a word that programmers use.
const FUNCTOOLS: &[&str] = &["functools["];

/// The grammar for calls that the model may begin; `None` where its syntax has no marker that opens them,
/// or is none that a grammar describes.
pub(in crate::text::constraint) fn opened(
    chat: &Chat,
    syntax: CallSyntax,
    vocabulary: &Vocabulary,
) -> Result<Option<Opened>, Error> {
    let CallSyntax::Json { open, close, bare } = syntax else {
        return Ok(None);
    };
    let calls = call_schemas(chat)?;
    let new = || Sequence::new(vocabulary);
    let (mut rules, one) = objects(&calls, bare, vocabulary);
    let more = |between: &str| match chat.parallel_tool_calls {
        true => format!("({} ({one})){{0,{}}}", literal(between), CALLS_MAX - 1),
        false => String::new(),
    };
    let first = open.first().copied().unwrap_or_default();
    let functools = first == "functools";
    let list = new()
        .text(if functools { "" } else { "[" })
        .raw(&format!("({one}) {}", more(", ")))
        .text("]");
    // Models may leave line breaks out that the forced form has.
    let line = format!("({})?", literal("\n"));
    let start = match first {
        "<tool_call>" => {
            let close = new().marker("</tool_call>").end();
            format!("{line} ({one}) {line} {close}")
        }
        _ if bare => format!("({one}) {}", more("; ")),
        "[TOOL_CALLS]" => {
            let (more_rules, names) = named(&calls, vocabulary);
            rules.push_str(&more_rules);
            format!("{} {names}", list.end())
        }
        // Its second marker opens single objects.
        "<|tool_call|>" => format!("{line} ({} | {one})", list.end()),
        _ => match close.first() {
            Some(close) => list.marker(close).end(),
            None => list.end(),
        },
    };
    Ok(Some(Opened {
        markers: if functools { FUNCTOOLS } else { open },
        lark: format!("start: {start}\n{rules}"),
    }))
}

/// Rules `named_N` for calls as newer models of Mistral write them, a name and then the arguments, and the
/// choice of one of them instead of what is before.
fn named(calls: &[Callable<'_>], vocabulary: &Vocabulary) -> (String, String) {
    let new = || Sequence::new(vocabulary);
    let identifier = match vocabulary.special_token("[CALL_ID]") {
        Some(_) => {
            let marker = new().marker("[CALL_ID]").end();
            format!("({marker}/[A-Za-z0-9]{{1,40}}/)? ")
        }
        None => String::new(),
    };
    let arguments = new().marker("[ARGS]").end();
    let mut rules = String::new();
    let mut names = String::new();
    for (index, callable) in calls.iter().enumerate() {
        let name = &callable.tool.name;
        // Others can't be told from what follows.
        if !name.chars().all(is_name) || name.len() > NAME_BYTES_MAX {
            continue;
        }
        let name = literal(name);
        rules.push_str(&format!(
            "named_{index}: {name} {identifier}({arguments})? arguments_{index}\n"
        ));
        names.push_str(&format!("| named_{index} "));
    }
    (rules, names)
}

/// What the parser takes for a part of a bare name.
fn is_name(char: char) -> bool {
    char.is_alphanumeric() || matches!(char, '_' | '-' | '.' | ':')
}
