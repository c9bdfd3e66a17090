//! [`engine::Request`] on the wire. JSON values travel as their text: schemas nest deeper than
//! frames may, and their keys have an order.

use engine::{
    Chat, Format, Input, Limits, Message, Mirostat, Request, Resumed, Role, Sampling, TokenId,
    Tool, ToolCall, ToolChoice,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::WireError;

/// Most choices that a peer may ask for; the engine has its own, smaller limit.
const CHOICES_MAX: u32 = 1024;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RequestWire {
    model: String,
    input: InputWire,
    sampling: SamplingWire,
    #[serde(default)]
    limits: LimitsWire,
    n: u32,
    #[serde(default)]
    format: FormatWire,
    #[serde(default)]
    logprobs: Option<u32>,
    cache_prompt: bool,
    speculate: bool,
    #[serde(default)]
    resume: Vec<ResumedWire>,
}

#[derive(Debug, Serialize, Deserialize)]
enum InputWire {
    Chat(ChatWire),
    Text(String),
    Tokens(Vec<TokenId>),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ChatWire {
    messages: Vec<MessageWire>,
    #[serde(default)]
    tools: Vec<ToolWire>,
    #[serde(default)]
    tool_choice: ToolChoiceWire,
    #[serde(default)]
    parallel_tool_calls: bool,
    /// A JSON object.
    #[serde(default)]
    template_kwargs: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
enum RoleWire {
    System,
    Developer,
    User,
    Assistant,
    Tool,
}

#[derive(Debug, Serialize, Deserialize)]
struct MessageWire {
    role: RoleWire,
    content: String,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    reasoning: Option<String>,
    #[serde(default)]
    tool_calls: Vec<ToolCallWire>,
    #[serde(default)]
    tool_call_id: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ToolCallWire {
    id: String,
    name: String,
    arguments: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct ToolWire {
    name: String,
    #[serde(default)]
    description: Option<String>,
    /// JSON.
    #[serde(default)]
    parameters: Option<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
enum ToolChoiceWire {
    #[default]
    Auto,
    None,
    Required,
    Named(String),
}

#[derive(Debug, Default, Serialize, Deserialize)]
enum FormatWire {
    #[default]
    Text,
    JsonObject,
    /// JSON.
    JsonSchema(String),
    Grammar(String),
}

#[derive(Debug, Serialize, Deserialize)]
struct SamplingWire {
    temperature: f32,
    top_k: u32,
    top_p: f32,
    min_p: f32,
    typical_p: f32,
    repeat_penalty: f32,
    penalty_last_n: u32,
    presence_penalty: f32,
    frequency_penalty: f32,
    dry_multiplier: f32,
    dry_base: f32,
    dry_allowed_length: u32,
    dry_penalty_last_n: u32,
    dry_sequence_breakers: Vec<String>,
    #[serde(default)]
    mirostat: Option<(u8, f32, f32)>,
    #[serde(default)]
    seed: Option<u32>,
    #[serde(default)]
    logit_bias: Vec<(TokenId, f32)>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct LimitsWire {
    max_tokens: Option<u32>,
    min_tokens: u32,
    ignore_eos: bool,
    stop: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ResumedWire {
    tokens: Vec<TokenId>,
    finished: bool,
}

impl From<&Request> for RequestWire {
    fn from(r: &Request) -> Self {
        let resumed = |r: &Resumed| ResumedWire {
            tokens: r.tokens.clone(),
            finished: r.finished,
        };
        Self {
            model: r.model.clone(),
            input: match &r.input {
                Input::Chat(chat) => InputWire::Chat(chat.into()),
                Input::Text(text) => InputWire::Text(text.clone()),
                Input::Tokens(tokens) => InputWire::Tokens(tokens.clone()),
            },
            sampling: (&r.sampling).into(),
            limits: LimitsWire {
                max_tokens: r.limits.max_tokens,
                min_tokens: r.limits.min_tokens,
                ignore_eos: r.limits.ignore_eos,
                stop: r.limits.stop.clone(),
            },
            n: r.n,
            format: match &r.format {
                Format::Text => FormatWire::Text,
                Format::JsonObject => FormatWire::JsonObject,
                Format::JsonSchema(schema) => FormatWire::JsonSchema(schema.to_string()),
                Format::Grammar(grammar) => FormatWire::Grammar(grammar.clone()),
            },
            logprobs: r.logprobs,
            cache_prompt: r.cache_prompt,
            speculate: r.speculate,
            resume: r.resume.iter().map(resumed).collect(),
        }
    }
}

impl TryFrom<RequestWire> for Request {
    type Error = WireError;

    fn try_from(w: RequestWire) -> Result<Self, WireError> {
        if !(1..=CHOICES_MAX).contains(&w.n) {
            return Err(WireError::Range("n"));
        }
        let resumed = |w: ResumedWire| Resumed {
            tokens: w.tokens,
            finished: w.finished,
        };
        Ok(Self {
            model: w.model,
            input: match w.input {
                InputWire::Chat(chat) => Input::Chat(chat.try_into()?),
                InputWire::Text(text) => Input::Text(text),
                InputWire::Tokens(tokens) => Input::Tokens(tokens),
            },
            sampling: w.sampling.try_into()?,
            limits: Limits {
                max_tokens: w.limits.max_tokens,
                min_tokens: w.limits.min_tokens,
                ignore_eos: w.limits.ignore_eos,
                stop: w.limits.stop,
            },
            n: w.n,
            format: match w.format {
                FormatWire::Text => Format::Text,
                FormatWire::JsonObject => Format::JsonObject,
                FormatWire::JsonSchema(text) => Format::JsonSchema(json(&text, "the schema")?),
                FormatWire::Grammar(grammar) => Format::Grammar(grammar),
            },
            logprobs: w.logprobs,
            cache_prompt: w.cache_prompt,
            speculate: w.speculate,
            resume: w.resume.into_iter().map(resumed).collect(),
        })
    }
}

impl From<&Chat> for ChatWire {
    fn from(c: &Chat) -> Self {
        let kwargs = &c.template_kwargs;
        Self {
            messages: c.messages.iter().map(MessageWire::from).collect(),
            tools: c.tools.iter().map(ToolWire::from).collect(),
            tool_choice: match &c.tool_choice {
                ToolChoice::Auto => ToolChoiceWire::Auto,
                ToolChoice::None => ToolChoiceWire::None,
                ToolChoice::Required => ToolChoiceWire::Required,
                ToolChoice::Named(name) => ToolChoiceWire::Named(name.clone()),
            },
            parallel_tool_calls: c.parallel_tool_calls,
            template_kwargs: (!kwargs.is_empty())
                .then(|| Value::Object(kwargs.clone()).to_string()),
        }
    }
}

impl TryFrom<ChatWire> for Chat {
    type Error = WireError;

    fn try_from(w: ChatWire) -> Result<Self, WireError> {
        let template_kwargs = match w.template_kwargs {
            None => Map::new(),
            Some(text) => match json(&text, "the template's variables")? {
                Value::Object(map) => map,
                _ => return Err(WireError::Range("the template's variables")),
            },
        };
        let tools = w.tools.into_iter().map(Tool::try_from);
        Ok(Self {
            messages: w.messages.into_iter().map(Message::from).collect(),
            tools: tools.collect::<Result<_, _>>()?,
            tool_choice: match w.tool_choice {
                ToolChoiceWire::Auto => ToolChoice::Auto,
                ToolChoiceWire::None => ToolChoice::None,
                ToolChoiceWire::Required => ToolChoice::Required,
                ToolChoiceWire::Named(name) => ToolChoice::Named(name),
            },
            parallel_tool_calls: w.parallel_tool_calls,
            template_kwargs,
        })
    }
}

impl From<&Message> for MessageWire {
    fn from(m: &Message) -> Self {
        let call = |c: &ToolCall| ToolCallWire {
            id: c.id.clone(),
            name: c.name.clone(),
            arguments: c.arguments.clone(),
        };
        Self {
            role: match m.role {
                Role::System => RoleWire::System,
                Role::Developer => RoleWire::Developer,
                Role::User => RoleWire::User,
                Role::Assistant => RoleWire::Assistant,
                Role::Tool => RoleWire::Tool,
            },
            content: m.content.clone(),
            name: m.name.clone(),
            reasoning: m.reasoning.clone(),
            tool_calls: m.tool_calls.iter().map(call).collect(),
            tool_call_id: m.tool_call_id.clone(),
        }
    }
}

impl From<MessageWire> for Message {
    fn from(w: MessageWire) -> Self {
        let call = |c: ToolCallWire| ToolCall {
            id: c.id,
            name: c.name,
            arguments: c.arguments,
        };
        Self {
            role: match w.role {
                RoleWire::System => Role::System,
                RoleWire::Developer => Role::Developer,
                RoleWire::User => Role::User,
                RoleWire::Assistant => Role::Assistant,
                RoleWire::Tool => Role::Tool,
            },
            content: w.content,
            name: w.name,
            reasoning: w.reasoning,
            tool_calls: w.tool_calls.into_iter().map(call).collect(),
            tool_call_id: w.tool_call_id,
        }
    }
}

impl From<&Tool> for ToolWire {
    fn from(t: &Tool) -> Self {
        Self {
            name: t.name.clone(),
            description: t.description.clone(),
            parameters: t.parameters.as_ref().map(Value::to_string),
        }
    }
}

impl TryFrom<ToolWire> for Tool {
    type Error = WireError;

    fn try_from(w: ToolWire) -> Result<Self, WireError> {
        let parameters = w.parameters.map(|text| json(&text, "a tool's parameters"));
        Ok(Self {
            name: w.name,
            description: w.description,
            parameters: parameters.transpose()?,
        })
    }
}

impl From<&Sampling> for SamplingWire {
    fn from(s: &Sampling) -> Self {
        Self {
            temperature: s.temperature,
            top_k: s.top_k,
            top_p: s.top_p,
            min_p: s.min_p,
            typical_p: s.typical_p,
            repeat_penalty: s.repeat_penalty,
            penalty_last_n: s.penalty_last_n,
            presence_penalty: s.presence_penalty,
            frequency_penalty: s.frequency_penalty,
            dry_multiplier: s.dry_multiplier,
            dry_base: s.dry_base,
            dry_allowed_length: s.dry_allowed_length,
            dry_penalty_last_n: s.dry_penalty_last_n,
            dry_sequence_breakers: s.dry_sequence_breakers.clone(),
            mirostat: s.mirostat.map(|m| (m.version, m.tau, m.eta)),
            seed: s.seed,
            logit_bias: s.logit_bias.clone(),
        }
    }
}

impl TryFrom<SamplingWire> for Sampling {
    type Error = WireError;

    /// The API checks these numbers at the ingress; a host does not rely on that.
    fn try_from(w: SamplingWire) -> Result<Self, WireError> {
        let numbers = [
            w.temperature,
            w.top_p,
            w.min_p,
            w.typical_p,
            w.repeat_penalty,
            w.presence_penalty,
            w.frequency_penalty,
            w.dry_multiplier,
            w.dry_base,
        ];
        let of_mirostat = w.mirostat.into_iter().flat_map(|(_, tau, eta)| [tau, eta]);
        if !numbers.into_iter().chain(of_mirostat).all(f32::is_finite) {
            return Err(WireError::Range("a sampling setting"));
        }
        if w.mirostat
            .is_some_and(|(version, _, _)| !(1..=2).contains(&version))
        {
            return Err(WireError::Range("mirostat"));
        }
        if w.logit_bias.iter().any(|(_, bias)| bias.is_nan()) {
            return Err(WireError::Range("logit_bias"));
        }
        Ok(Self {
            temperature: w.temperature,
            top_k: w.top_k,
            top_p: w.top_p,
            min_p: w.min_p,
            typical_p: w.typical_p,
            repeat_penalty: w.repeat_penalty,
            penalty_last_n: w.penalty_last_n,
            presence_penalty: w.presence_penalty,
            frequency_penalty: w.frequency_penalty,
            dry_multiplier: w.dry_multiplier,
            dry_base: w.dry_base,
            dry_allowed_length: w.dry_allowed_length,
            dry_penalty_last_n: w.dry_penalty_last_n,
            dry_sequence_breakers: w.dry_sequence_breakers,
            mirostat: w
                .mirostat
                .map(|(version, tau, eta)| Mirostat { version, tau, eta }),
            seed: w.seed,
            logit_bias: w.logit_bias,
        })
    }
}

fn json(text: &str, what: &'static str) -> Result<Value, WireError> {
    serde_json::from_str(text).map_err(|_| WireError::Range(what))
}
