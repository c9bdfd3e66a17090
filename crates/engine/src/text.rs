//! Between a conversation and a model's text: prompts, constraints, and reading the answer.
//!
//! Owns chat templates, the syntaxes of tool calls and reasoning, and grammars. Pure Rust:
//! nothing here knows llama.cpp, scheduling or sampling. [`ChatFormat`] puts the parts together
//! and is all that a scheduler needs.

pub mod constraint;
pub mod dialect;
pub mod gbnf;
mod literal;
pub mod parse;
pub mod template;

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use crate::{Chat, Error, Format, Input, Request, TokenId, ToolChoice};

use literal::Literals;

pub use constraint::{Constraint, ConstraintState, Vocabulary};
pub use dialect::Dialect;
pub use literal::Prompt;
pub use parse::{OutputParser, Piece, Start};
pub use template::{ChatTemplate, TemplateError};

/// A model's way of chatting: made once per model, used for every request.
#[derive(Debug)]
pub struct ChatFormat {
    template: ChatTemplate,
    dialect: Dialect,
    vocabulary: Vocabulary,
    bos: String,
    /// Control tokens whose text the parser must see.
    shown: Arc<HashSet<TokenId>>,
    literals: Arc<Literals>,
    stops: Vec<String>,
}

/// Everything about a request that is known before its first token.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The prompt's text, with special tokens spelled out; `None` if the request itself holds
    /// the text or the tokens.
    pub prompt: Option<String>,
    /// Parts of the prompt, bytes, that are text even if they spell a special token: the caller
    /// wrote them. See [`Prompt::parts`] and [`ChatFormat::tokens`].
    pub literals: Vec<Range<usize>>,
    /// Whether tokenising `prompt` must add the model's BOS: `false` if it starts with it.
    pub add_special: bool,
    /// Reads the answer; clone it for each choice.
    pub parser: OutputParser,
    /// What the answer must look like, or the calls in it.
    pub constraint: Option<Constraint>,
    /// Further texts that end the answer, besides the request's own.
    pub stops: Vec<String>,
}

impl ChatFormat {
    /// The format of a model with this `template` (from its file), whose BOS and EOS tokens are
    /// spelled `bos` and `eos` (empty if it has none).
    ///
    /// Without a template ChatML is used if the vocabulary has its tokens, else plain text.
    /// A template that is not valid Jinja is an error; the caller may fall back to `None`.
    pub fn new(
        template: Option<&str>,
        bos: &str,
        eos: &str,
        vocabulary: Vocabulary,
    ) -> Result<Self, TemplateError> {
        let mut stops = Vec::new();
        let source = match template.filter(|source| !source.trim().is_empty()) {
            Some(source) => source,
            None if vocabulary.has_token("<|im_start|>") => template::CHATML,
            None => {
                stops.push("\nUser:".to_owned());
                template::PLAIN
            }
        };
        let template = ChatTemplate::new(source, bos, eos)?;
        // A template without tools is given the Hermes form, so calls come in it too.
        let mut dialect = Dialect::detect(source);
        if !template.knows_tools() && dialect.calls != dialect::CallSyntax::Harmony {
            dialect = dialect.with_hermes_calls();
        }
        let markers = dialect.markers();
        let shown = markers
            .iter()
            .filter_map(|marker| vocabulary.special_token(marker));
        let shown = Arc::new(shown.collect::<HashSet<_>>());
        let listed = [markers.as_slice(), &dialect::RESULT_TAGS].concat();
        let mut kept = dialect.text_markers();
        // What ends an answer would end the turn.
        kept.retain(|marker| {
            let token = vocabulary.special_token(marker);
            token.is_none_or(|token| !vocabulary.is_end(token))
        });
        let literals = Arc::new(Literals::new(vocabulary.special_texts(&listed), kept));
        Ok(Self {
            template,
            dialect,
            literals,
            vocabulary,
            bos: bos.to_owned(),
            shown,
            stops,
        })
    }

    /// Whether the model's template knows tools.
    #[must_use]
    pub fn knows_tools(&self) -> bool {
        self.template.knows_tools()
    }

    /// Whether the model reasons apart from its answer.
    #[must_use]
    pub fn knows_reasoning(&self) -> bool {
        self.template.knows_reasoning()
    }

    /// The syntax of the model's calls and reasoning.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Whether the text of `token` belongs to the answer's text. `false` for control tokens
    /// that have no meaning in the model's syntax.
    #[must_use]
    pub fn shows(&self, token: TokenId) -> bool {
        !self.vocabulary.is_special(token) || self.shown.contains(&token)
    }

    /// The prompt for `chat`.
    pub fn render(&self, chat: &Chat) -> Result<String, Error> {
        self.template.render(chat)
    }

    /// Prompt, parser and constraint for `request`.
    ///
    /// Errors: [`Error::InvalidRequest`] for conversations that the template refuses and for
    /// schemas, grammars or tool choices that can't be enforced.
    pub fn prepare(&self, request: &Request) -> Result<Prepared, Error> {
        match &request.input {
            Input::Chat(chat) => self.prepare_chat(chat, &request.format),
            Input::Text(_) | Input::Tokens(_) => self.prepare_plain(&request.format),
        }
    }

    /// The tokens of the prompt in `prepared`, without the BOS that [`Prepared::add_special`] asks
    /// for. `tokenize` is given text, and whether the special tokens that it spells are taken for
    /// such.
    ///
    /// A prompt without literals is tokenised as a whole. Of another one all that is between the
    /// control tokens around a literal is tokenised as text, and gives no control token.
    ///
    /// Errors: those of `tokenize`.
    pub fn tokens<E>(
        &self,
        prepared: &Prepared,
        tokenize: impl Fn(&str, bool) -> Result<Vec<TokenId>, E>,
    ) -> Result<Vec<TokenId>, E> {
        let is_control = |token: TokenId| {
            let index = u32::try_from(token).unwrap_or(u32::MAX);
            let text = std::str::from_utf8(self.vocabulary.bytes(index));
            text.is_ok_and(|text| self.literals.is_spelling(text))
        };
        let text = prepared.prompt.as_deref().unwrap_or_default();
        self.literals
            .tokens(text, &prepared.literals, &is_control, &tokenize)
    }

    /// Parser and constraint for a completion of plain text or tokens.
    pub fn prepare_plain(&self, format: &Format) -> Result<Prepared, Error> {
        let dialect = Dialect {
            reasoning: None,
            ..Dialect::default()
        };
        Ok(Prepared {
            prompt: None,
            literals: Vec::new(),
            add_special: true,
            parser: OutputParser::plain(),
            constraint: Constraint::for_request(
                format,
                &Chat::default(),
                dialect,
                Start::Content,
                &self.vocabulary,
            )?,
            stops: Vec::new(),
        })
    }

    fn prepare_chat(&self, chat: &Chat, format: &Format) -> Result<Prepared, Error> {
        check_tools(chat)?;
        let forced = matches!(
            chat.tool_choice,
            ToolChoice::Required | ToolChoice::Named(_)
        );
        if forced && matches!(format, Format::Grammar(_)) {
            let reason = "can't be combined with a `tool_choice` that forces a call";
            return Err(Error::invalid("grammar", reason));
        }
        let marked = self.template.render_marked(chat, &self.literals)?;
        let Prompt {
            text: prompt,
            literals,
        } = self.literals.unmark(&marked);
        let mut dialect = constraint::forced_dialect(self.dialect, format, chat);
        let start = match dialect::opens_reasoning(&prompt) {
            Some(tags) => {
                dialect.reasoning = Some(tags);
                Start::Reasoning
            }
            None => Start::Content,
        };
        let vocabulary = &self.vocabulary;
        let constraint = Constraint::for_request(format, chat, dialect, start, vocabulary)?
            .or_else(|| Constraint::for_calls(chat, dialect, start, vocabulary, &self.shown));
        Ok(Prepared {
            add_special: self.bos.is_empty()
                || !prompt.starts_with(&self.bos)
                || literals.first().is_some_and(|literal| literal.start == 0),
            parser: OutputParser::new(dialect, chat, start),
            constraint,
            stops: self.stops.clone(),
            literals,
            prompt: Some(prompt),
        })
    }
}

/// Longest name of a tool, bytes; other servers allow 64.
const TOOL_NAME_BYTES_MAX: usize = 256;

/// Checks what every dialect relies on.
fn check_tools(chat: &Chat) -> Result<(), Error> {
    for (index, tool) in chat.tools.iter().enumerate() {
        if tool.name.is_empty() {
            return Err(Error::invalid(
                format!("tools[{index}].function.name"),
                "must not be empty",
            ));
        }
        // Some syntaxes end a name at white space.
        let strange = |char: char| char.is_whitespace() || char.is_control();
        if tool.name.len() > TOOL_NAME_BYTES_MAX || tool.name.contains(strange) {
            return Err(Error::invalid(
                format!("tools[{index}].function.name"),
                format!("must have no white space and at most {TOOL_NAME_BYTES_MAX} bytes"),
            ));
        }
    }
    match &chat.tool_choice {
        ToolChoice::Required if chat.tools.is_empty() => Err(Error::invalid(
            "tool_choice",
            "`required` needs at least one tool",
        )),
        ToolChoice::Named(name) if !chat.tools.iter().any(|tool| tool.name == *name) => Err(
            Error::invalid("tool_choice", format!("there is no tool named `{name}`")),
        ),
        _ => Ok(()),
    }
}
