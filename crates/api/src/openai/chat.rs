//! `/v1/chat/completions`: request, answer, and the chunks of a streamed answer.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::input::{Content, WordOr, objects_only};
use super::sampling::generation_request;
use super::usage::{Timings, Usage};

generation_request! {
    /// A conversation to continue. Other fields of OpenAI's API (`user`, `metadata`, `store`,
    /// `service_tier` and so on) are accepted and ignored.
    pub struct ChatRequest {
        /// The conversation so far, oldest message first.
        #[schema(schema_with = crate::openapi::union::messages)]
        pub messages: Vec<ChatMessage>,
        /// The newer name of `max_tokens`.
        #[serde(default, deserialize_with = "crate::openai::input::whole")]
        #[schema(schema_with = crate::openapi::union::max_tokens)]
        pub max_completion_tokens: Option<i64>,
        /// Report the log-probability of each token.
        #[serde(default)]
        pub logprobs: Option<bool>,
        /// How many alternatives to report per token; needs `logprobs`.
        #[serde(default, deserialize_with = "crate::openai::input::whole")]
        #[schema(minimum = 0, maximum = 20)]
        pub top_logprobs: Option<i64>,
        /// Functions that the model may call.
        #[serde(default)]
        #[schema(schema_with = crate::openapi::union::tools)]
        pub tools: Option<Vec<ChatTool>>,
        /// Whether and which function must be called.
        #[serde(default)]
        #[schema(schema_with = crate::openapi::union::tool_choice)]
        pub tool_choice: Option<WordOr<NamedToolChoice>>,
        /// Whether one answer may hold several calls; on by default.
        #[serde(default)]
        pub parallel_tool_calls: Option<bool>,
        /// Variables for the model's chat template, for example `enable_thinking`.
        #[serde(default)]
        #[schema(value_type = Option<Object>)]
        pub chat_template_kwargs: Option<Map<String, Value>>,
        /// How much the model should reason, where its template knows that; `none` turns it off.
        #[serde(default)]
        #[schema(schema_with = crate::openapi::union::reasoning_effort)]
        pub reasoning_effort: Option<String>,
        /// What comes out: only text does.
        #[serde(default)]
        #[schema(schema_with = crate::openapi::union::modalities)]
        pub modalities: Option<Vec<String>>,
        /// OpenAI's older form of `tools`; refused.
        #[serde(default)]
        #[schema(ignore)]
        pub functions: Option<Vec<Value>>,
    }
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(remote = "Self")]
pub struct ChatMessage {
    /// `system`, `developer`, `user`, `assistant` or `tool`.
    pub role: String,
    /// The text.
    #[serde(default)]
    pub content: Option<Content>,
    /// Name of the speaker.
    #[serde(default)]
    pub name: Option<String>,
    /// Reasoning that came before the content.
    #[serde(default)]
    pub reasoning_content: Option<String>,
    /// Calls that an assistant made.
    #[serde(default)]
    pub tool_calls: Option<Vec<ChatToolCall>>,
    /// The call that a message of role `tool` answers.
    #[serde(default)]
    pub tool_call_id: Option<String>,
}

/// A call in a message of the conversation so far.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(remote = "Self")]
pub struct ChatToolCall {
    /// Identifier.
    pub id: String,
    /// `function`.
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    /// What was called.
    pub function: ChatToolCallFunction,
}

/// Name and arguments of a call.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(remote = "Self")]
pub struct ChatToolCallFunction {
    /// Function name.
    pub name: String,
    /// Arguments as JSON text; some clients send the object itself.
    #[serde(default)]
    pub arguments: Value,
}

/// A function that the model may call.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(remote = "Self")]
pub struct ChatTool {
    /// `function`.
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    /// The function.
    #[serde(default)]
    pub function: Option<ChatFunction>,
}

/// Description of a function.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(remote = "Self")]
pub struct ChatFunction {
    /// Name.
    pub name: String,
    /// What it does.
    #[serde(default)]
    pub description: Option<String>,
    /// JSON schema of its arguments.
    #[serde(default)]
    pub parameters: Option<Value>,
}

/// `tool_choice` as an object.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(remote = "Self")]
pub struct NamedToolChoice {
    /// `function` or `allowed_tools`.
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    /// For `function`.
    #[serde(default)]
    pub function: Option<FunctionName>,
    /// For `allowed_tools`.
    #[serde(default)]
    pub allowed_tools: Option<AllowedTools>,
}

/// Name of a function.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(remote = "Self")]
pub struct FunctionName {
    /// Name.
    pub name: String,
}

/// A subset of the tools.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(remote = "Self")]
pub struct AllowedTools {
    /// `auto` or `required`.
    pub mode: String,
    /// The subset.
    pub tools: Vec<AllowedTool>,
}

/// One of the allowed tools.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(remote = "Self")]
pub struct AllowedTool {
    /// `function`.
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    /// The function.
    pub function: FunctionName,
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ChatCompletion {
    /// Identifier, `chatcmpl-…`.
    pub id: String,
    /// `chat.completion`.
    pub object: &'static str,
    /// When the answer was made, Unix seconds.
    pub created: u64,
    /// The model that answered.
    pub model: String,
    /// Identity of the model's content.
    #[schema(required)]
    pub system_fingerprint: Option<String>,
    /// The answers.
    pub choices: Vec<ChatChoice>,
    /// Token counts.
    pub usage: Usage,
    /// Times.
    pub timings: Timings,
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ChatChoice {
    /// Index among the choices.
    pub index: u32,
    /// The message.
    pub message: AnswerMessage,
    /// Log-probabilities, when asked for.
    #[schema(required)]
    pub logprobs: Option<ChatLogprobs>,
    /// `stop`, `length` or `tool_calls`.
    pub finish_reason: &'static str,
}

/// The message of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct AnswerMessage {
    /// `assistant`.
    pub role: &'static str,
    /// The text; null when the model only calls tools.
    #[schema(required)]
    pub content: Option<String>,
    /// Reasoning, apart from the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// Always null.
    #[schema(required)]
    pub refusal: Option<String>,
    /// Calls of tools.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub tool_calls: Vec<AnswerToolCall>,
}

/// A call that the model makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct AnswerToolCall {
    /// Identifier that the result refers to.
    pub id: String,
    /// `function`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// What is called.
    pub function: AnswerFunction,
}

/// Name and arguments of a call that the model makes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, ToSchema)]
pub struct AnswerFunction {
    /// Function name.
    pub name: String,
    /// Arguments as JSON text.
    pub arguments: String,
}

/// Log-probabilities of an answer's tokens.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ChatLogprobs {
    /// One entry per token.
    pub content: Vec<ChatTokenLogprob>,
    /// Always null.
    #[schema(required, value_type = Option<Vec<ChatTokenLogprob>>)]
    pub refusal: Option<()>,
}

/// Log-probability of one token.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ChatTokenLogprob {
    /// The token as text, as far as it is UTF-8.
    pub token: String,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// The token as bytes.
    pub bytes: Vec<u8>,
    /// The likeliest tokens at this place.
    pub top_logprobs: Vec<ChatTopLogprob>,
}

/// Log-probability of an alternative.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ChatTopLogprob {
    /// The token as text, as far as it is UTF-8.
    pub token: String,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// The token as bytes.
    pub bytes: Vec<u8>,
}

/// A piece of a streamed answer, the data of one event.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ChatChunk {
    /// Identifier, the same in all chunks.
    pub id: String,
    /// `chat.completion.chunk`.
    pub object: &'static str,
    /// When the answer was begun, Unix seconds.
    pub created: u64,
    /// The model that answers.
    pub model: String,
    /// Identity of the model's content.
    #[schema(required)]
    pub system_fingerprint: Option<String>,
    /// What is new; empty in the chunk with the token counts.
    pub choices: Vec<ChatChunkChoice>,
    /// Token counts, in the last chunk, when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Times, in the last chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timings: Option<Timings>,
}

/// What is new in one choice.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ChatChunkChoice {
    /// Index among the choices.
    pub index: u32,
    /// What is new.
    pub delta: ChatDelta,
    /// Log-probabilities of the new tokens, when asked for.
    #[schema(required)]
    pub logprobs: Option<ChatLogprobs>,
    /// Why the choice ended; null before.
    #[schema(required)]
    pub finish_reason: Option<&'static str>,
}

/// New parts of a message.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, ToSchema)]
pub struct ChatDelta {
    /// `assistant`, in the first chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'static str>,
    /// New text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// New reasoning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// Null, in the first chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub refusal: Option<()>,
    /// Pieces of calls.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub tool_calls: Vec<ChatToolCallDelta>,
}

/// A piece of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ChatToolCallDelta {
    /// Index of the call in its message.
    pub index: u32,
    /// Identifier, with the first piece.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `function`, with the first piece.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    /// What is new.
    pub function: ChatFunctionDelta,
}

/// New parts of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ChatFunctionDelta {
    /// Function name, with the first piece.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Next part of the arguments' JSON text.
    pub arguments: String,
}

objects_only!(
    ChatRequest,
    ChatMessage,
    ChatToolCall,
    ChatToolCallFunction,
    ChatTool,
    ChatFunction,
    NamedToolChoice,
    FunctionName,
    AllowedTools,
    AllowedTool,
);
