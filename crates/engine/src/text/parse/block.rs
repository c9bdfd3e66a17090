//! Reads whole blocks of tool calls with the parsers of `dynamo-parsers`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use dynamo_parsers::tool_calling::ToolDefinition;
use dynamo_parsers::tool_calling::parsers::{
    detect_and_parse_tool_call, detect_and_parse_tool_call_with_recovery,
};
use futures::FutureExt;

use crate::Tool;

/// A tool as the parsers want it.
pub(super) type Definition = ToolDefinition;

/// What a block holds.
pub(super) struct Read {
    pub(super) calls: Vec<Call>,
    /// Text around the calls.
    pub(super) content: String,
}

/// A call in a block.
pub(super) struct Call {
    pub(super) id: Option<String>,
    pub(super) name: String,
    pub(super) arguments: String,
}

pub(super) fn definition(tool: &Tool) -> Definition {
    ToolDefinition {
        name: tool.name.clone(),
        parameters: tool.parameters.clone(),
        strict: None,
    }
}

/// Reads `text` with the parser of that name; `None` if it holds no call. `cut`: the answer
/// ended inside the block.
pub(super) fn read(parser: &str, text: &str, tools: &[Definition], cut: bool) -> Option<Read> {
    // The parsers are asynchronous in name only: none waits for anything. They are not ours
    // and read what a model wrote, so a panic in one must not take the request's task down.
    let parsed = catch_unwind(AssertUnwindSafe(|| {
        if cut {
            detect_and_parse_tool_call_with_recovery(text, Some(parser), Some(tools)).now_or_never()
        } else {
            detect_and_parse_tool_call(text, Some(parser), Some(tools)).now_or_never()
        }
    }));
    let (calls, content) = match parsed {
        Ok(Some(Ok((calls, content)))) if !calls.is_empty() => (calls, content),
        Ok(Some(Err(error))) => {
            tracing::debug!(parser, %error, "a tool call could not be read");
            return None;
        }
        Err(_) => {
            tracing::warn!(parser, "the parser of tool calls panicked");
            return None;
        }
        Ok(_) => return None,
    };
    // Kimi's templates want the identifiers that the model gave.
    let keeps_ids = parser.starts_with("kimi");
    let calls = calls
        .into_iter()
        .map(|call| Call {
            id: Some(call.id).filter(|id| keeps_ids && !id.is_empty()),
            name: call.function.name,
            arguments: call.function.arguments,
        })
        .collect();
    Some(Read {
        calls,
        content: content.unwrap_or_default(),
    })
}
