//! Chat templates: a conversation in, the prompt's text out.
//!
//! Owns the Jinja environment with the semantics that model templates expect (those of Hugging
//! Face's `apply_chat_template`), probing what a template can do, and standing in for what it
//! can't (tools, system messages). Does not know how the model's answer is read back.

mod compiled;
mod conversation;
mod environment;
mod python;
mod stack;

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error as ThisError;

use super::literal::Literals;
use crate::{Chat, Error};
use compiled::Compiled;
pub(super) use stack::on_large_stack;
use stack::{Unfinished, Watch};

/// Longest template source, bytes. The longest in the wild has about 20 kB.
const SOURCE_BYTES_MAX: usize = 128 << 10;
/// Time for compiling and probing, and for one rendering; real templates take some milliseconds.
///
/// Fuel bounds most of what a template can do, but does not see everything: adding a list to
/// itself 60 times costs minijinja more than it counts.
const TIME_MAX: Duration = Duration::from_secs(5);
/// Renderings that were given up and may still run, before the template is not used any more:
/// each may keep a core busy.
const STUCK_MAX: u32 = 2;

/// The format used when a model has no template but ChatML's tokens.
pub const CHATML: &str = "{%- for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{%- endfor %}{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{%- endif %}";

/// The format used when a model has neither a template nor ChatML's tokens.
pub const PLAIN: &str = "{%- for message in messages %}{%- if message.role == 'system' %}{{ message.content + '\\n\\n' }}{%- else %}{{ message.role | capitalize + ': ' + message.content + '\\n' }}{%- endif %}{%- endfor %}{%- if add_generation_prompt %}{{ 'Assistant:' }}{%- endif %}";

/// Why a model's chat template can't be used.
#[derive(Debug, Clone, PartialEq, Eq, ThisError)]
pub enum TemplateError {
    /// It is longer than any real template.
    #[error("the chat template has {bytes} bytes, at most {SOURCE_BYTES_MAX} are read")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// It runs without end on a conversation of one word.
    #[error("the chat template needs too much work for the shortest conversation")]
    Costly,
    /// There is no memory or thread to compile it.
    #[error("the chat template can't be compiled: no thread for it")]
    NoThread,
    /// It is not valid Jinja.
    #[error("the chat template is not valid Jinja: {0}")]
    Syntax(String),
}

/// A model's chat template, compiled and probed.
#[derive(Debug)]
pub struct ChatTemplate {
    compiled: Arc<Compiled>,
    watch: Watch,
}

impl ChatTemplate {
    /// Compiles `source` and renders probes to learn what it can do. `bos` and `eos` are the
    /// texts of the model's tokens.
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<Self, TemplateError> {
        if source.len() > SOURCE_BYTES_MAX {
            return Err(TemplateError::TooLong {
                bytes: source.len(),
            });
        }
        let (source, bos, eos) = (source.to_owned(), bos.to_owned(), eos.to_owned());
        let compile = move || Compiled::new(&source, &bos, &eos);
        let compiled = match Watch::default().run(TIME_MAX, compile) {
            Ok(compiled) => compiled?,
            Err(Unfinished::NoThread) => return Err(TemplateError::NoThread),
            Err(Unfinished::Late) => return Err(TemplateError::Costly),
        };
        Ok(Self {
            compiled: Arc::new(compiled),
            watch: Watch::default(),
        })
    }

    /// The template's text.
    #[must_use]
    pub fn source(&self) -> &str {
        self.compiled.source()
    }

    /// Whether it shows tools to the model by itself.
    #[must_use]
    pub fn knows_tools(&self) -> bool {
        self.compiled.abilities().tools
    }

    /// Whether the model it is for reasons apart from its answer.
    #[must_use]
    pub fn knows_reasoning(&self) -> bool {
        self.compiled.abilities().reasoning
    }

    /// Renders `chat` up to the place where the model's answer starts.
    ///
    /// If the last message is an assistant's without tool calls, the model goes on with it,
    /// unless `template_kwargs` has `continue_final_message: false`.
    ///
    /// Errors: [`Error::InvalidRequest`] at `messages` when the template refuses them or does
    /// not come to an end with them.
    pub fn render(&self, chat: &Chat) -> Result<String, Error> {
        self.render_marked(chat, &Arc::default())
    }

    /// [`ChatTemplate::render`] with `literals` marked in what the caller wrote.
    pub(super) fn render_marked(
        &self,
        chat: &Chat,
        literals: &Arc<Literals>,
    ) -> Result<String, Error> {
        if chat.messages.is_empty() {
            return Err(Error::invalid("messages", "must hold at least one message"));
        }
        if self.watch.stuck() >= STUCK_MAX {
            return Err(Error::Inference(
                "the model's chat template still works on earlier conversations; \
                 hint: use another file of this model"
                    .into(),
            ));
        }
        let (compiled, chat) = (Arc::clone(&self.compiled), chat.clone());
        let literals = Arc::clone(literals);
        let render = move || compiled.render(&chat, &literals);
        match self.watch.run(TIME_MAX, render) {
            Ok(text) => text,
            Err(Unfinished::Late) => Err(Error::invalid("messages", compiled::COSTLY)),
            Err(Unfinished::NoThread) => Err(Error::Inference(
                "the chat template can't be rendered: no thread for it".into(),
            )),
        }
    }
}
