//! Chat templates: a conversation in, the prompt's text out.
//!
//! Owns the Jinja environment with the semantics that model templates expect (those of Hugging
//! Face's `apply_chat_template`), probing what a template can do, and standing in for what it
//! can't (tools, system messages). Does not know how the model's answer is read back.

mod conversation;
mod python;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{Environment, ErrorKind};
use thiserror::Error as ThisError;

use crate::{Chat, Error, Message, Role, ToolCall, ToolChoice};
use conversation::{Quirks, Variables};

/// Work that one rendering may do. minijinja charges one unit per instruction and per 64 bytes
/// made, so this also bounds memory (about 128 MiB). A 100,000-token conversation needs a tenth.
const FUEL_MAX: u64 = 2_000_000;
/// Nesting of macros and includes; real templates stay under 20.
const RECURSION_MAX: usize = 200;
/// Longest template source, bytes. The longest in the wild has about 20 kB.
const SOURCE_BYTES_MAX: usize = 128 << 10;
/// Stack for compiling and rendering (and for reading schemas, which may refer to each other
/// 10,000 deep at 12 kB a level), bytes of address space. A source as long as allowed can
/// be a chain of 60,000 operators, and fuel buys lists nested 200,000 deep; both are walked, and
/// dropped, by recursion with under 1 kB a level.
const STACK_BYTES: usize = 256 << 20;
/// Time for compiling and probing; real templates take some milliseconds.
const COMPILE_TIME_MAX: std::time::Duration = std::time::Duration::from_secs(5);
const NAME: &str = "chat";

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
    environment: Environment<'static>,
    source: String,
    bos: String,
    eos: String,
    abilities: Abilities,
    quirks: Quirks,
}

/// What probe renderings showed.
#[derive(Debug, Clone, Copy, Default)]
struct Abilities {
    tools: bool,
    system: bool,
    reasoning: bool,
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
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        // Fuel does not see everything (adding a list to itself 60 times costs minijinja more
        // than it counts), and a thread can't be stopped: one that takes too long is left alone.
        let compile = move || {
            let _ = sender.send(Self::compiled(&source, &bos, &eos));
        };
        std::thread::Builder::new()
            .name("template".into())
            .stack_size(STACK_BYTES)
            .spawn(compile)
            .map_err(|_| TemplateError::NoThread)?;
        receiver
            .recv_timeout(COMPILE_TIME_MAX)
            .unwrap_or(Err(TemplateError::Costly))
    }

    fn compiled(source: &str, bos: &str, eos: &str) -> Result<Self, TemplateError> {
        let source = without_generation_tags(source);
        let mut environment = environment();
        environment
            .add_template_owned(NAME, source.clone())
            .map_err(|error| TemplateError::Syntax(describe(&error)))?;
        let mut template = Self {
            environment,
            source,
            bos: bos.to_owned(),
            eos: eos.to_owned(),
            abilities: Abilities::default(),
            quirks: Quirks::default(),
        };
        template.probe()?;
        Ok(template)
    }

    /// The template's text.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it shows tools to the model by itself.
    #[must_use]
    pub fn knows_tools(&self) -> bool {
        self.abilities.tools
    }

    /// Whether the model it is for reasons apart from its answer.
    #[must_use]
    pub fn knows_reasoning(&self) -> bool {
        self.abilities.reasoning
    }

    /// Renders `chat` up to the place where the model's answer starts.
    ///
    /// If the last message is an assistant's without tool calls, the model goes on with it,
    /// unless `template_kwargs` has `continue_final_message: false`.
    ///
    /// Errors: [`Error::InvalidRequest`] at `messages` when the template refuses them.
    pub fn render(&self, chat: &Chat) -> Result<String, Error> {
        if chat.messages.is_empty() {
            return Err(Error::invalid("messages", "must hold at least one message"));
        }
        let continues = chat
            .template_kwargs
            .get("continue_final_message")
            .and_then(serde_json::Value::as_bool)
            .unwrap_or(true);
        let render = || self.render_continued(chat, continues);
        on_large_stack(render).unwrap_or_else(|| {
            Err(Error::Inference(
                "the chat template can't be rendered: no thread for it".into(),
            ))
        })
    }

    fn render_continued(&self, chat: &Chat, continues: bool) -> Result<String, Error> {
        match chat.messages.split_last() {
            Some((last, earlier)) if continues && is_open_answer(last) && !earlier.is_empty() => {
                let prompt = self.render_messages(chat, earlier)?;
                Ok(continued(prompt, last))
            }
            _ => self.render_messages(chat, &chat.messages),
        }
    }

    fn render_messages(&self, chat: &Chat, messages: &[Message]) -> Result<String, Error> {
        let tools = match chat.tool_choice {
            ToolChoice::None => &[][..],
            _ => &chat.tools[..],
        };
        let messages = self.adapted(messages, tools, chat.parallel_tool_calls);
        let variables = Variables {
            messages: &messages,
            tools: if self.abilities.tools { tools } else { &[] },
            kwargs: &chat.template_kwargs,
            bos: &self.bos,
            eos: &self.eos,
        };
        self.evaluate(&variables, self.quirks)
            .map_err(|error| Error::invalid("messages", refusal(&error)))
    }

    /// Messages in a form that this template can show.
    fn adapted(&self, messages: &[Message], tools: &[crate::Tool], parallel: bool) -> Vec<Message> {
        let mut messages = messages.to_vec();
        if !self.abilities.tools {
            messages = conversation::without_tool_roles(messages);
            if !tools.is_empty() {
                let block = conversation::tools_block(tools, parallel);
                conversation::add_to_system(&mut messages, &block);
            }
        }
        if !self.abilities.system {
            conversation::merge_system(&mut messages);
        }
        messages
    }

    fn evaluate(
        &self,
        variables: &Variables<'_>,
        quirks: Quirks,
    ) -> Result<String, minijinja::Error> {
        let template = self.environment.get_template(NAME)?;
        template.render(variables.to_value(quirks))
    }

    /// Learns what the template shows by rendering small conversations.
    fn probe(&mut self) -> Result<(), TemplateError> {
        self.quirks.short_call_ids = self.source.contains("length != 9");
        self.quirks.developer_role =
            self.source.contains("'developer'") || self.source.contains("\"developer\"");
        let user = Message::user("probe-user");
        let first = self.probe_evaluate(std::slice::from_ref(&user), &[], &[], self.quirks);
        if first.is_err_and(|error| error.kind() == ErrorKind::OutOfFuel) {
            return Err(TemplateError::Costly);
        }
        let system = [Message::system("probe-system"), user.clone()];
        self.abilities.system = self
            .probe_render(&system, &[], &[], self.quirks)
            .is_some_and(|text| text.contains("probe-system"));
        let tool = crate::Tool {
            name: "probe_tool".into(),
            description: Some("probe-description".into()),
            parameters: Some(serde_json::json!({
                "type": "object",
                "properties": {"probe_argument": {"type": "string", "description": "probe"}},
                "required": ["probe_argument"],
            })),
        };
        self.abilities.tools = self
            .probe_render(
                std::slice::from_ref(&user),
                std::slice::from_ref(&tool),
                &[],
                self.quirks,
            )
            .is_some_and(|text| text.contains("probe_tool"));
        if self.abilities.tools {
            self.probe_calls(&user, &tool);
        }
        self.abilities.reasoning = self.probe_reasoning(&user);
        Ok(())
    }

    /// Finds how the template wants calls of earlier turns: arguments as an object or as
    /// text, content empty or null.
    fn probe_calls(&mut self, user: &Message, tool: &crate::Tool) {
        let mut call = Message::assistant("");
        call.tool_calls.push(ToolCall {
            id: "call12345".into(),
            name: "probe_tool".into(),
            arguments: r#"{"probe_argument": "probe-value"}"#.into(),
        });
        let messages = [
            user.clone(),
            call,
            Message::tool("call12345", "probe-result"),
        ];
        for (text_arguments, null_content) in
            [(false, false), (false, true), (true, false), (true, true)]
        {
            let quirks = Quirks {
                text_arguments,
                null_content,
                ..self.quirks
            };
            let shown = self
                .probe_render(&messages, std::slice::from_ref(tool), &[], quirks)
                .is_some_and(|text| text.contains("probe-value"));
            if shown {
                self.quirks = quirks;
                return;
            }
        }
    }

    fn probe_reasoning(&self, user: &Message) -> bool {
        let messages = std::slice::from_ref(user);
        let plain = self.probe_render(messages, &[], &[], self.quirks);
        let opens = |text: &Option<String>| {
            text.as_deref()
                .is_some_and(|text| super::dialect::opens_reasoning(text).is_some())
        };
        if opens(&plain) || super::dialect::is_harmony(&self.source) {
            return true;
        }
        let with = |name: &str, value: bool| {
            self.probe_render(messages, &[], &[(name, value)], self.quirks)
        };
        for switch in ["enable_thinking", "thinking"] {
            let (on, off) = (with(switch, true), with(switch, false));
            if on != off || opens(&on) {
                return true;
            }
        }
        let mut thought = Message::assistant("probe-answer");
        thought.reasoning = Some("probe-reasoning".into());
        let messages = [user.clone(), thought];
        self.probe_render(&messages, &[], &[], self.quirks)
            .is_some_and(|text| text.contains("probe-reasoning"))
            || self.source.contains("</think>")
    }

    fn probe_render(
        &self,
        messages: &[Message],
        tools: &[crate::Tool],
        switches: &[(&str, bool)],
        quirks: Quirks,
    ) -> Option<String> {
        self.probe_evaluate(messages, tools, switches, quirks).ok()
    }

    fn probe_evaluate(
        &self,
        messages: &[Message],
        tools: &[crate::Tool],
        switches: &[(&str, bool)],
        quirks: Quirks,
    ) -> Result<String, minijinja::Error> {
        let kwargs = switches
            .iter()
            .map(|(name, value)| ((*name).to_owned(), serde_json::Value::Bool(*value)))
            .collect();
        let variables = Variables {
            messages,
            tools,
            kwargs: &kwargs,
            bos: &self.bos,
            eos: &self.eos,
        };
        self.evaluate(&variables, quirks)
    }
}

/// Runs `work` on a thread with a large stack; `None` if there is none to be had.
pub(super) fn on_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("template".into())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, work);
        thread.ok()?.join().ok()
    })
}

fn is_open_answer(message: &Message) -> bool {
    message.role == Role::Assistant && message.tool_calls.is_empty()
}

/// Appends what the assistant has said already. If the prompt opens a block of reasoning, the
/// message's reasoning fills it and it is closed before the content.
fn continued(mut prompt: String, last: &Message) -> String {
    match super::dialect::opens_reasoning(&prompt) {
        Some(syntax) => {
            prompt.push_str(last.reasoning.as_deref().unwrap_or(""));
            if !last.content.is_empty() {
                prompt.push('\n');
                prompt.push_str(syntax.close);
                prompt.push_str("\n\n");
                prompt.push_str(&last.content);
            }
        }
        None => prompt.push_str(&last.content),
    }
    prompt
}

fn environment() -> Environment<'static> {
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

fn refusal(error: &minijinja::Error) -> String {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = source {
        if cause.downcast_ref::<Refused>().is_some() {
            let said = error.detail().unwrap_or("no reason given");
            return format!("the model's chat template refuses this conversation: {said}");
        }
        source = cause.source();
    }
    match error.kind() {
        ErrorKind::OutOfFuel => {
            "the model's chat template needs too much work for this conversation".to_owned()
        }
        _ => format!(
            "the model's chat template fails on this conversation: {}",
            describe(error)
        ),
    }
}

fn describe(error: &minijinja::Error) -> String {
    match error.line() {
        Some(line) => format!("{error} (line {line})"),
        None => error.to_string(),
    }
}

/// Hugging Face marks the assistant's text with `{% generation %}` blocks, which plain Jinja
/// doesn't know; they become blocks that are always taken.
fn without_generation_tags(source: &str) -> String {
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
