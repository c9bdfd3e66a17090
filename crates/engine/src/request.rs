//! The normalised request: the one form every API dialect is turned into.
//!
//! No type here derives `Serialize`: wire formats belong to the edges and convert by hand.

use serde_json::{Map, Value};

/// A token of the model's vocabulary.
pub type TokenId = i32;

/// One generation request.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Model name; empty or `auto` means the best that is ready.
    pub model: String,
    /// What to continue or answer.
    pub input: Input,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// When generation ends.
    pub limits: Limits,
    /// Number of choices; they share the prompt's KV.
    pub n: u32,
    /// What shape the output must have.
    pub format: Format,
    /// `Some(k)`: report log-probabilities, with the `k` likeliest alternatives per token.
    pub logprobs: Option<u32>,
    /// Whether the KV of earlier requests may be reused.
    pub cache_prompt: bool,
    /// Whether speculation may be used when the model has it.
    pub speculate: bool,
    /// An answer that another engine began, to be gone on with: one entry per choice; empty for a
    /// new answer. Its seed must then be set.
    pub resume: Vec<Resumed>,
}

/// How far a choice has come elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resumed {
    /// The tokens of the answer so far, in order.
    pub tokens: Vec<TokenId>,
    /// The choice has ended: nothing more is said of it.
    pub finished: bool,
}

impl Request {
    /// A request with default settings for `input`.
    #[must_use]
    pub fn new(model: impl Into<String>, input: Input) -> Self {
        Self {
            model: model.into(),
            input,
            sampling: Sampling::default(),
            limits: Limits::default(),
            n: 1,
            format: Format::Text,
            logprobs: None,
            cache_prompt: true,
            speculate: true,
            resume: Vec::new(),
        }
    }
}

/// What a request starts from.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// Messages, rendered with the model's own chat template.
    Chat(Chat),
    /// Plain text, tokenised with special tokens recognised.
    Text(String),
    /// Token ids as they are.
    Tokens(Vec<TokenId>),
}

/// A conversation and the tools offered in it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Chat {
    /// The messages so far, oldest first.
    pub messages: Vec<Message>,
    /// Tools that the model may call.
    pub tools: Vec<Tool>,
    /// Whether and which tool must be called.
    pub tool_choice: ToolChoice,
    /// Whether one answer may hold several calls.
    pub parallel_tool_calls: bool,
    /// Extra variables for the template (for example `enable_thinking`).
    pub template_kwargs: Map<String, Value>,
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Instructions for the whole conversation.
    System,
    /// The same, under OpenAI's newer name.
    Developer,
    /// The person or program that asks.
    User,
    /// The model.
    Assistant,
    /// The result of a tool call.
    Tool,
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// The text; empty for an assistant message that only calls tools.
    pub content: String,
    /// Name of the speaker, where given.
    pub name: Option<String>,
    /// Reasoning that came before the content, apart from it.
    pub reasoning: Option<String>,
    /// Calls made by an assistant message.
    pub tool_calls: Vec<ToolCall>,
    /// For [`Role::Tool`]: the call this answers.
    pub tool_call_id: Option<String>,
}

impl Message {
    /// A message of `role` with only text.
    #[must_use]
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self {
            role,
            content: content.into(),
            name: None,
            reasoning: None,
            tool_calls: Vec::new(),
            tool_call_id: None,
        }
    }

    /// A system message.
    #[must_use]
    pub fn system(content: impl Into<String>) -> Self {
        Self::new(Role::System, content)
    }

    /// A user message.
    #[must_use]
    pub fn user(content: impl Into<String>) -> Self {
        Self::new(Role::User, content)
    }

    /// An assistant message.
    #[must_use]
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new(Role::Assistant, content)
    }

    /// The result of the tool call `id`.
    #[must_use]
    pub fn tool(id: impl Into<String>, content: impl Into<String>) -> Self {
        Self {
            tool_call_id: Some(id.into()),
            ..Self::new(Role::Tool, content)
        }
    }
}

/// A function that the model may call.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    /// Function name.
    pub name: String,
    /// What it does.
    pub description: Option<String>,
    /// JSON schema of its arguments; `None` takes any object.
    pub parameters: Option<Value>,
}

/// A complete call of a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCall {
    /// Identifier that the tool's result refers to.
    pub id: String,
    /// Function name.
    pub name: String,
    /// Arguments as JSON text.
    pub arguments: String,
}

/// Whether and which tool must be called.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    /// No call; tools are not shown to the model.
    None,
    /// At least one call, enforced by grammar.
    Required,
    /// A call of this tool, enforced by grammar.
    Named(String),
}

/// The shape that the output must have.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Format {
    /// Free text.
    #[default]
    Text,
    /// Any JSON object.
    JsonObject,
    /// JSON that fits this schema.
    JsonSchema(Value),
    /// Text that fits this GBNF grammar.
    Grammar(String),
}

/// How tokens are drawn. Field names and neutral values are llama.cpp's.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f32,
    /// Keep the k likeliest; 0 keeps all.
    pub top_k: u32,
    /// Keep the smallest set of this probability mass; 1 keeps all.
    pub top_p: f32,
    /// Drop tokens below this share of the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Locally typical sampling; 1 is off.
    pub typical_p: f32,
    /// Repetition penalty over `penalty_last_n` tokens; 1 is off.
    pub repeat_penalty: f32,
    /// Window of the penalties, over prompt and answer, tokens.
    pub penalty_last_n: u32,
    /// Added per earlier presence.
    pub presence_penalty: f32,
    /// Added per earlier occurrence.
    pub frequency_penalty: f32,
    /// DRY multiplier; 0 is off.
    pub dry_multiplier: f32,
    /// DRY base.
    pub dry_base: f32,
    /// Longest repeat that DRY leaves alone, tokens.
    pub dry_allowed_length: u32,
    /// Window of DRY, over prompt and answer, tokens.
    pub dry_penalty_last_n: u32,
    /// Texts that end a repeat for DRY.
    pub dry_sequence_breakers: Vec<String>,
    /// Mirostat instead of the truncating samplers.
    pub mirostat: Option<Mirostat>,
    /// Same seed, same text; `None` draws one.
    pub seed: Option<u32>,
    /// Added to the logit of each token; `-inf` bans it.
    pub logit_bias: Vec<(TokenId, f32)>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            typical_p: 1.0,
            repeat_penalty: 1.0,
            penalty_last_n: 64,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            dry_multiplier: 0.0,
            dry_base: 1.75,
            dry_allowed_length: 2,
            dry_penalty_last_n: 1024,
            dry_sequence_breakers: ["\n", ":", "\"", "*"].map(String::from).to_vec(),
            mirostat: None,
            seed: None,
            logit_bias: Vec::new(),
        }
    }
}

/// Mirostat's settings (Basu et al., 2020, arXiv:2007.14966).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mirostat {
    /// 1 or 2.
    pub version: u8,
    /// Target surprise, nats.
    pub tau: f32,
    /// Learning rate.
    pub eta: f32,
}

/// When generation ends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits {
    /// At most so many new tokens per choice; `None`: to the end of the context.
    pub max_tokens: Option<u32>,
    /// End-of-text tokens are not drawn before so many tokens.
    pub min_tokens: u32,
    /// End-of-text tokens are never drawn.
    pub ignore_eos: bool,
    /// Texts that end generation; they are not part of the output.
    pub stop: Vec<String>,
}

/// A request for embeddings.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbedRequest {
    /// Model name; empty or `auto` means the best that can embed.
    pub model: String,
    /// One embedding is made for each.
    pub inputs: Vec<EmbedInput>,
}

/// One text to embed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EmbedInput {
    /// Text.
    Text(String),
    /// Token ids as they are.
    Tokens(Vec<TokenId>),
}
