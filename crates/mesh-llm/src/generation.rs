//! A request while it is being put together.

use std::future::{Future, IntoFuture};
use std::pin::Pin;

use serde_json::{Map, Value};

use crate::engine::Inner;
use crate::event::{self, CHOICES_MAX, ChoiceEvents};
use crate::{Engine, Error, Events, Message, Reply, Tool, ToolChoice};

/// A request to generate, made by [`Engine::chat`], [`Engine::chat_with_tools`] or
/// [`Engine::complete`].
///
/// Set options, then await it for the stream of events, or call [`Generation::text`] or
/// [`Generation::reply`] for the whole answer. What is not set is the model's or server's default.
#[derive(Debug, Clone)]
#[must_use = "a request does nothing until it is awaited"]
pub struct Generation {
    pub(crate) engine: Engine,
    pub(crate) input: Input,
    pub(crate) options: Options,
}

/// What a generation starts from.
#[derive(Debug, Clone)]
pub(crate) enum Input {
    Chat {
        messages: Vec<Message>,
        tools: Vec<Tool>,
    },
    Text(String),
}

/// What was set. Kept apart from defaults: a server that does not know an option must not see it
/// unless the caller asked for it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    pub(crate) model: Option<String>,
    pub(crate) temperature: Option<f32>,
    pub(crate) top_p: Option<f32>,
    pub(crate) top_k: Option<u32>,
    pub(crate) min_p: Option<f32>,
    pub(crate) repeat_penalty: Option<f32>,
    pub(crate) presence_penalty: Option<f32>,
    pub(crate) frequency_penalty: Option<f32>,
    pub(crate) seed: Option<u32>,
    pub(crate) max_tokens: Option<u32>,
    pub(crate) ignore_eos: Option<bool>,
    pub(crate) n: Option<u32>,
    pub(crate) logprobs: Option<u32>,
    pub(crate) stop: Vec<String>,
    pub(crate) format: Option<::engine::Format>,
    pub(crate) tool_choice: Option<ToolChoice>,
    pub(crate) parallel_tool_calls: Option<bool>,
    pub(crate) template_kwargs: Map<String, Value>,
}

impl Options {
    /// The numbers that were set, with their names on the wire.
    pub(crate) fn numbers(&self) -> [(&'static str, Option<f32>); 6] {
        [
            ("temperature", self.temperature),
            ("top_p", self.top_p),
            ("min_p", self.min_p),
            ("repeat_penalty", self.repeat_penalty),
            ("presence_penalty", self.presence_penalty),
            ("frequency_penalty", self.frequency_penalty),
        ]
    }

    /// Refuses what no server need see: numbers of answers that this side could not hold, and
    /// infinity, which JSON has not and would turn into "not set".
    fn check(&self) -> Result<(), Error> {
        if !(1..=CHOICES_MAX).contains(&self.n.unwrap_or(1)) {
            let reason = format!("must be 1 to {CHOICES_MAX}");
            return Err(::engine::Error::invalid("n", reason).into());
        }
        let is_wrong = |value: Option<f32>| value.is_some_and(|value| !value.is_finite());
        match self
            .numbers()
            .into_iter()
            .find(|(_, value)| is_wrong(*value))
        {
            Some((field, _)) => Err(::engine::Error::invalid(field, "must be finite").into()),
            None => Ok(()),
        }
    }
}

impl Generation {
    pub(crate) fn new(engine: Engine, input: Input) -> Self {
        Self {
            engine,
            input,
            options: Options::default(),
        }
    }

    /// The model to ask, instead of the engine's default.
    pub fn model(mut self, name: impl Into<String>) -> Self {
        self.options.model = Some(name.into());
        self
    }

    /// How freely tokens are drawn; 0 always takes the likeliest.
    pub fn temperature(mut self, temperature: f32) -> Self {
        self.options.temperature = Some(temperature);
        self
    }

    /// Draw only from the smallest set of tokens with this probability mass.
    pub fn top_p(mut self, top_p: f32) -> Self {
        self.options.top_p = Some(top_p);
        self
    }

    /// Draw only from the `top_k` likeliest tokens.
    pub fn top_k(mut self, top_k: u32) -> Self {
        self.options.top_k = Some(top_k);
        self
    }

    /// Never draw tokens below this share of the likeliest one's probability.
    pub fn min_p(mut self, min_p: f32) -> Self {
        self.options.min_p = Some(min_p);
        self
    }

    /// Make tokens that came before less likely; 1 is off.
    pub fn repeat_penalty(mut self, penalty: f32) -> Self {
        self.options.repeat_penalty = Some(penalty);
        self
    }

    /// Subtracted from the logit of every token that came before.
    pub fn presence_penalty(mut self, penalty: f32) -> Self {
        self.options.presence_penalty = Some(penalty);
        self
    }

    /// Subtracted from a token's logit once per earlier occurrence.
    pub fn frequency_penalty(mut self, penalty: f32) -> Self {
        self.options.frequency_penalty = Some(penalty);
        self
    }

    /// Same seed, same answer.
    pub fn seed(mut self, seed: u32) -> Self {
        self.options.seed = Some(seed);
        self
    }

    /// End the answer after so many tokens.
    pub fn max_tokens(mut self, tokens: u32) -> Self {
        self.options.max_tokens = Some(tokens);
        self
    }

    /// Go on where the model would end, to the limit of tokens. mesh-llm, llama.cpp and vLLM only.
    pub fn ignore_eos(mut self) -> Self {
        self.options.ignore_eos = Some(true);
        self
    }

    /// Generate so many answers, which share the prompt's work; get them with
    /// [`Generation::replies`].
    pub fn n(mut self, n: u32) -> Self {
        self.options.n = Some(n);
        self
    }

    /// Report the log-probability of each token, with the `top` likeliest alternatives (at most
    /// 20): see [`Event::Logprobs`](crate::Event::Logprobs) and [`Reply::logprobs`].
    pub fn logprobs(mut self, top: u32) -> Self {
        self.options.logprobs = Some(top);
        self
    }

    /// End the answer before this text. May be called several times.
    pub fn stop(mut self, text: impl Into<String>) -> Self {
        self.options.stop.push(text.into());
        self
    }

    /// Answer with a JSON object.
    pub fn json(mut self) -> Self {
        self.options.format = Some(::engine::Format::JsonObject);
        self
    }

    /// Answer with JSON that fits `schema`.
    pub fn json_schema(mut self, schema: Value) -> Self {
        self.options.format = Some(::engine::Format::JsonSchema(schema));
        self
    }

    /// Answer with text that fits a GBNF grammar. mesh-llm and llama.cpp only.
    pub fn grammar(mut self, gbnf: impl Into<String>) -> Self {
        self.options.format = Some(::engine::Format::Grammar(gbnf.into()));
        self
    }

    /// Whether and which tool must be called.
    pub fn tool_choice(mut self, choice: ToolChoice) -> Self {
        self.options.tool_choice = Some(choice);
        self
    }

    /// Whether one answer may hold several tool calls.
    pub fn parallel_tool_calls(mut self, parallel: bool) -> Self {
        self.options.parallel_tool_calls = Some(parallel);
        self
    }

    /// An extra variable for the model's chat template, for example `enable_thinking`.
    pub fn template_variable(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.options
            .template_kwargs
            .insert(name.into(), value.into());
        self
    }

    /// Sends the request. The same as awaiting it.
    ///
    /// # Errors
    /// What is known before the first event; [`Error::InvalidRequest`] for several answers, which
    /// have no one stream.
    pub async fn stream(self) -> Result<Events, Error> {
        if self.options.n.is_some_and(|n| n > 1) {
            let reason = "several answers have no one stream; hint: call `replies`";
            return Err(::engine::Error::invalid("n", reason).into());
        }
        Ok(Events::of_one(self.choices().await?))
    }

    /// The events of all choices.
    async fn choices(self) -> Result<ChoiceEvents, Error> {
        self.options.check()?;
        let model = self
            .options
            .model
            .as_ref()
            .unwrap_or(&self.engine.model)
            .clone();
        match &self.engine.inner {
            Inner::Local(node) => {
                crate::local::generate(node, model, self.input, self.options).await
            }
            Inner::Remote(remote) => remote.generate(&model, &self.input, &self.options).await,
        }
    }

    /// Sends the request and waits for the whole answer.
    ///
    /// # Errors
    /// What ended the answer.
    pub async fn reply(self) -> Result<Reply, Error> {
        self.stream().await?.reply().await
    }

    /// Sends the request and waits for all answers that [`Generation::n`] asks for.
    ///
    /// # Errors
    /// What ended one of them.
    pub async fn replies(self) -> Result<Vec<Reply>, Error> {
        let n = self.options.n.unwrap_or(1);
        event::replies(self.choices().await?, n).await
    }

    /// Sends the request and waits for the whole answer's text.
    ///
    /// # Errors
    /// What ended the answer.
    pub async fn text(self) -> Result<String, Error> {
        self.stream().await?.text().await
    }
}

impl IntoFuture for Generation {
    type Output = Result<Events, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.stream())
    }
}
