//! Chat requests: messages, tools, and what the template is told.

use std::collections::HashSet;

use engine::{Chat, Input, Message, ModelInfo, Request, Role, Tool, ToolCall, ToolChoice};
use serde_json::Value;

use super::{count, sampling};
use crate::error::ApiError;
use crate::openai::chat::{
    AllowedTools, ChatMessage, ChatRequest, ChatTool, ChatToolCall, NamedToolChoice,
};
use crate::openai::input::{Content, Part, WordOr};

/// Tools of one request: OpenAI's limit.
const TOOLS_MAX: usize = 128;
/// Longest function name, bytes; OpenAI takes 64, MCP hosts prefix theirs.
const NAME_BYTES_MAX: usize = 128;
/// Values of `reasoning_effort`.
const EFFORTS: [&str; 6] = ["none", "minimal", "low", "medium", "high", "xhigh"];

/// The engine's request for a chat request.
pub(crate) fn request(mut wire: ChatRequest, info: &ModelInfo) -> Result<Request, ApiError> {
    refuse_unserved(&wire)?;
    let mut common = wire.common();
    let newer = sampling::max_tokens(wire.max_completion_tokens, "max_completion_tokens")?;
    sampling::max_tokens(common.max_tokens, "max_tokens")?;
    if newer.is_some() {
        common.max_tokens = newer.map(i64::from);
    }
    let logprobs = logprobs(&wire)?;
    let chat = conversation(wire)?;
    let mut request = Request::new(info.name.clone(), Input::Chat(chat));
    sampling::apply(common, &mut request, info)?;
    request.logprobs = logprobs;
    Ok(request)
}

fn refuse_unserved(wire: &ChatRequest) -> Result<(), ApiError> {
    if wire.functions.as_ref().is_some_and(|list| !list.is_empty()) {
        return Err(ApiError::unsupported(
            "functions",
            "functions: replaced by tools in OpenAI's API; hint: send `tools`",
        ));
    }
    let modalities = wire.modalities.as_deref().unwrap_or_default();
    if modalities.iter().any(|modality| modality != "text") {
        return Err(ApiError::unsupported(
            "modalities",
            "modalities: only `text` comes out of this server",
        ));
    }
    Ok(())
}

fn logprobs(wire: &ChatRequest) -> Result<Option<u32>, ApiError> {
    let top = count(wire.top_logprobs, 0..=20, "top_logprobs")?;
    match (wire.logprobs, top) {
        (Some(true), top) => Ok(Some(top.unwrap_or(0))),
        (_, Some(1..)) => Err(ApiError::invalid(
            "top_logprobs",
            "top_logprobs: needs `logprobs: true`",
        )),
        _ => Ok(None),
    }
}

/// Messages, tools and template variables of `wire`.
fn conversation(wire: ChatRequest) -> Result<Chat, ApiError> {
    let mut chat = Chat {
        messages: messages(wire.messages)?,
        tools: tools(wire.tools)?,
        tool_choice: ToolChoice::Auto,
        parallel_tool_calls: wire.parallel_tool_calls.unwrap_or(true),
        template_kwargs: wire.chat_template_kwargs.unwrap_or_default(),
    };
    choose(wire.tool_choice, &mut chat)?;
    if let Some(effort) = wire.reasoning_effort {
        if !EFFORTS.contains(&effort.as_str()) {
            return Err(ApiError::invalid(
                "reasoning_effort",
                format!("reasoning_effort: must be one of {}", EFFORTS.join(", ")),
            ));
        }
        let kwargs = &mut chat.template_kwargs;
        kwargs
            .entry("enable_thinking")
            .or_insert(Value::Bool(effort != "none"));
        kwargs
            .entry("reasoning_effort")
            .or_insert(Value::String(effort));
    }
    Ok(chat)
}

/// A conversation for the template alone, as `/v1/tokenize` takes it.
pub(crate) fn bare_chat(
    wire: Vec<ChatMessage>,
    offered: Option<Vec<ChatTool>>,
) -> Result<Chat, ApiError> {
    Ok(Chat {
        messages: messages(wire)?,
        tools: tools(offered)?,
        parallel_tool_calls: true,
        ..Chat::default()
    })
}

fn messages(wire: Vec<ChatMessage>) -> Result<Vec<Message>, ApiError> {
    if wire.is_empty() {
        return Err(ApiError::invalid("messages", "messages: must not be empty"));
    }
    wire.into_iter()
        .enumerate()
        .map(|(index, wire)| message(wire, &format!("messages[{index}]")))
        .collect()
}

fn message(wire: ChatMessage, path: &str) -> Result<Message, ApiError> {
    let role = match wire.role.as_str() {
        "system" => Role::System,
        "developer" => Role::Developer,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" => Role::Tool,
        _ => {
            return Err(ApiError::invalid(
                format!("{path}.role"),
                format!(
                    "{path}.role: must be `system`, `developer`, `user`, `assistant` or `tool`"
                ),
            ));
        }
    };
    let content = match wire.content {
        Some(content) => text_of(content, role, &format!("{path}.content"))?,
        None if role == Role::Assistant => String::new(),
        None => {
            return Err(ApiError::invalid(
                format!("{path}.content"),
                format!("{path}.content: missing"),
            ));
        }
    };
    let calls = wire.tool_calls.unwrap_or_default();
    if !calls.is_empty() && role != Role::Assistant {
        return Err(ApiError::invalid(
            format!("{path}.tool_calls"),
            format!("{path}.tool_calls: only an assistant calls tools"),
        ));
    }
    if role == Role::Tool && wire.tool_call_id.is_none() {
        return Err(ApiError::invalid(
            format!("{path}.tool_call_id"),
            format!("{path}.tool_call_id: missing"),
        ));
    }
    Ok(Message {
        role,
        content,
        name: wire.name,
        reasoning: wire.reasoning_content,
        tool_calls: calls
            .into_iter()
            .enumerate()
            .map(|(index, call)| tool_call(call, &format!("{path}.tool_calls[{index}]")))
            .collect::<Result<_, _>>()?,
        tool_call_id: wire.tool_call_id,
    })
}

fn text_of(content: Content, role: Role, path: &str) -> Result<String, ApiError> {
    let parts = match content {
        Content::Text(text) => return Ok(text),
        Content::Parts(parts) => parts,
    };
    let mut text = String::new();
    for (index, part) in parts.into_iter().enumerate() {
        let missing = |field: &str| {
            let path = format!("{path}[{index}].{field}");
            ApiError::invalid(path.clone(), format!("{path}: missing"))
        };
        let Part {
            kind,
            text: plain,
            refusal,
        } = part;
        match kind.as_str() {
            "text" => text.push_str(&plain.ok_or_else(|| missing("text"))?),
            "refusal" if role == Role::Assistant => {
                text.push_str(&refusal.ok_or_else(|| missing("refusal"))?)
            }
            _ => {
                let path = format!("{path}[{index}].type");
                let kind: String = kind.chars().take(32).collect();
                return Err(ApiError::unsupported(
                    path.clone(),
                    format!("{path}: `{kind}` can't be read here; hint: send parts of type `text`"),
                ));
            }
        }
    }
    Ok(text)
}

fn tool_call(call: ChatToolCall, path: &str) -> Result<ToolCall, ApiError> {
    check_kind(call.kind.as_deref(), path)?;
    let arguments = match call.function.arguments {
        Value::String(text) => text,
        Value::Null => "{}".to_owned(),
        value @ Value::Object(_) => value.to_string(),
        _ => {
            let path = format!("{path}.function.arguments");
            return Err(ApiError::invalid(
                path.clone(),
                format!("{path}: must be JSON text"),
            ));
        }
    };
    Ok(ToolCall {
        id: call.id,
        name: call.function.name,
        arguments,
    })
}

fn check_kind(kind: Option<&str>, path: &str) -> Result<(), ApiError> {
    match kind {
        None | Some("function") => Ok(()),
        Some(_) => Err(ApiError::unsupported(
            format!("{path}.type"),
            format!("{path}.type: only `function` is served"),
        )),
    }
}

fn tools(wire: Option<Vec<ChatTool>>) -> Result<Vec<Tool>, ApiError> {
    let wire = wire.unwrap_or_default();
    if wire.len() > TOOLS_MAX {
        return Err(ApiError::invalid(
            "tools",
            format!(
                "tools: {} of them, at most {TOOLS_MAX} are taken",
                wire.len()
            ),
        ));
    }
    let mut names = HashSet::new();
    let mut tools = Vec::with_capacity(wire.len());
    for (index, tool) in wire.into_iter().enumerate() {
        let tool = self::tool(tool, &format!("tools[{index}]"))?;
        if !names.insert(tool.name.clone()) {
            let path = format!("tools[{index}].function.name");
            return Err(ApiError::invalid(
                path.clone(),
                format!("{path}: `{}` comes twice", tool.name),
            ));
        }
        tools.push(tool);
    }
    Ok(tools)
}

fn tool(wire: ChatTool, path: &str) -> Result<Tool, ApiError> {
    check_kind(wire.kind.as_deref(), path)?;
    let function = wire.function.ok_or_else(|| {
        let path = format!("{path}.function");
        ApiError::invalid(path.clone(), format!("{path}: missing"))
    })?;
    let known = |c: char| c.is_ascii_alphanumeric() || "_-.:/".contains(c);
    let name = function.name;
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(known) {
        let path = format!("{path}.function.name");
        return Err(ApiError::invalid(
            path.clone(),
            format!(
                "{path}: must be 1 to {NAME_BYTES_MAX} of the characters a-z A-Z 0-9 _ - . : /"
            ),
        ));
    }
    let parameters = match function.parameters {
        None | Some(Value::Null) => None,
        Some(value @ Value::Object(_)) => Some(value),
        Some(_) => {
            let path = format!("{path}.function.parameters");
            return Err(ApiError::invalid(
                path.clone(),
                format!("{path}: a JSON schema is an object"),
            ));
        }
    };
    Ok(Tool {
        name,
        description: function.description,
        parameters,
    })
}

fn choose(wire: Option<WordOr<NamedToolChoice>>, chat: &mut Chat) -> Result<(), ApiError> {
    let invalid = |message: &str| {
        Err(ApiError::invalid(
            "tool_choice",
            format!("tool_choice: {message}"),
        ))
    };
    chat.tool_choice = match wire {
        None => ToolChoice::Auto,
        Some(WordOr::Word(word)) => match word.as_str() {
            "auto" => ToolChoice::Auto,
            "none" => ToolChoice::None,
            "required" => ToolChoice::Required,
            _ => return invalid("must be `auto`, `none`, `required` or an object"),
        },
        Some(WordOr::Object(NamedToolChoice {
            allowed_tools: Some(allowed),
            kind,
            ..
        })) => {
            return match kind.as_deref() {
                None | Some("allowed_tools") => allow(allowed, chat),
                Some(_) => invalid("its type must be `function` or `allowed_tools`"),
            };
        }
        Some(WordOr::Object(NamedToolChoice {
            function: Some(function),
            kind,
            ..
        })) => {
            check_kind(kind.as_deref(), "tool_choice")?;
            ToolChoice::Named(function.name)
        }
        Some(WordOr::Object(_)) => return invalid("names no function"),
    };
    match &chat.tool_choice {
        ToolChoice::Required if chat.tools.is_empty() => {
            invalid("a call is required, but there are no tools")
        }
        ToolChoice::Named(name) if !chat.tools.iter().any(|tool| tool.name == *name) => {
            invalid("names a function that is not among the tools")
        }
        _ => Ok(()),
    }
}

/// Leaves only the allowed tools.
fn allow(allowed: AllowedTools, chat: &mut Chat) -> Result<(), ApiError> {
    const PATH: &str = "tool_choice.allowed_tools";
    let names: Vec<String> = allowed
        .tools
        .into_iter()
        .enumerate()
        .map(|(index, tool)| {
            check_kind(tool.kind.as_deref(), &format!("{PATH}.tools[{index}]"))?;
            Ok(tool.function.name)
        })
        .collect::<Result<_, ApiError>>()?;
    if let Some(unknown) = names
        .iter()
        .find(|&name| !chat.tools.iter().any(|tool| tool.name == *name))
    {
        let unknown: String = unknown.chars().take(64).collect();
        return Err(ApiError::invalid(
            format!("{PATH}.tools"),
            format!("{PATH}.tools: `{unknown}` is not among the tools"),
        ));
    }
    chat.tools.retain(|tool| names.contains(&tool.name));
    chat.tool_choice = match allowed.mode.as_str() {
        "auto" => ToolChoice::Auto,
        "required" if !chat.tools.is_empty() => ToolChoice::Required,
        _ => {
            return Err(ApiError::invalid(
                format!("{PATH}.mode"),
                format!("{PATH}.mode: must be `auto`, or `required` with tools"),
            ));
        }
    };
    Ok(())
}
