//! A template ready for use: renders conversations, and learns by small ones what it can show.

use minijinja::{Environment, ErrorKind};

use super::TemplateError;
use super::conversation::{self, Quirks, Variables};
use super::environment;
use crate::text::literal::{Author, Literals};
use crate::{Chat, Error, Message, Role, Tool, ToolCall, ToolChoice};

const NAME: &str = "chat";
/// What a conversation is told whose rendering costs too much.
pub(super) const COSTLY: &str =
    "the model's chat template needs too much work for this conversation";

/// A compiled and probed template.
#[derive(Debug)]
pub(super) struct Compiled {
    environment: Environment<'static>,
    source: String,
    bos: String,
    eos: String,
    abilities: Abilities,
    quirks: Quirks,
}

/// What probe renderings showed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Abilities {
    pub(super) tools: bool,
    pub(super) system: bool,
    pub(super) reasoning: bool,
}

impl Compiled {
    /// Compiles `source` and renders the probes. Needs a large stack.
    pub(super) fn new(source: &str, bos: &str, eos: &str) -> Result<Self, TemplateError> {
        let source = environment::without_generation_tags(source);
        let mut environment = environment::environment();
        environment
            .add_template_owned(NAME, source.clone())
            .map_err(|error| TemplateError::Syntax(environment::describe(&error)))?;
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

    pub(super) fn source(&self) -> &str {
        &self.source
    }

    pub(super) fn abilities(&self) -> Abilities {
        self.abilities
    }

    /// See [`super::ChatTemplate::render`]: the text with `literals` marked in what the caller
    /// wrote. Needs a large stack.
    pub(super) fn render(&self, chat: &Chat, literals: &Literals) -> Result<String, Error> {
        let continues = chat
            .template_kwargs
            .get("continue_final_message")
            .and_then(serde_json::Value::as_bool)
            .unwrap_or(true);
        match chat.messages.split_last() {
            Some((last, earlier)) if continues && is_open_answer(last) && !earlier.is_empty() => {
                let prompt = self.render_messages(chat, earlier, literals)?;
                Ok(continued(prompt, last, literals))
            }
            _ => self.render_messages(chat, &chat.messages, literals),
        }
    }

    fn render_messages(
        &self,
        chat: &Chat,
        messages: &[Message],
        literals: &Literals,
    ) -> Result<String, Error> {
        let tools = match chat.tool_choice {
            ToolChoice::None => &[][..],
            _ => &chat.tools[..],
        };
        // Before anything is added: what is said here and not by the caller holds no literals.
        let tools = conversation::marked_tools(tools, literals);
        let messages = conversation::marked_messages(messages, literals);
        let messages = self.adapted(messages, &tools, chat.parallel_tool_calls, literals);
        let variables = Variables {
            messages: &messages,
            tools: if self.abilities.tools { &tools } else { &[] },
            kwargs: &chat.template_kwargs,
            bos: &self.bos,
            eos: &self.eos,
        };
        self.evaluate(&variables, self.quirks, literals)
            .map_err(|error| Error::invalid("messages", environment::refusal(&error)))
    }

    /// Messages in a form that this template can show.
    fn adapted(
        &self,
        mut messages: Vec<Message>,
        tools: &[Tool],
        parallel: bool,
        literals: &Literals,
    ) -> Vec<Message> {
        if !self.abilities.tools {
            messages = conversation::without_tool_roles(messages, literals);
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
        literals: &Literals,
    ) -> Result<String, minijinja::Error> {
        let template = self.environment.get_template(NAME)?;
        template.render(variables.to_value(quirks, literals))
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
        let tool = Tool {
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
    fn probe_calls(&mut self, user: &Message, tool: &Tool) {
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
                .is_some_and(|text| crate::text::dialect::opens_reasoning(text).is_some())
        };
        if opens(&plain) || crate::text::dialect::is_harmony(&self.source) {
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
        tools: &[Tool],
        switches: &[(&str, bool)],
        quirks: Quirks,
    ) -> Option<String> {
        self.probe_evaluate(messages, tools, switches, quirks).ok()
    }

    fn probe_evaluate(
        &self,
        messages: &[Message],
        tools: &[Tool],
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
        self.evaluate(&variables, quirks, &Literals::default())
    }
}

fn is_open_answer(message: &Message) -> bool {
    message.role == Role::Assistant && message.tool_calls.is_empty()
}

/// Appends what the assistant has said already. If the prompt opens a block of reasoning, the
/// message's reasoning fills it and it is closed before the content.
fn continued(mut prompt: String, last: &Message, literals: &Literals) -> String {
    let mark = |text| literals.mark(text, Author::Model);
    match crate::text::dialect::opens_reasoning(&prompt) {
        Some(syntax) => {
            prompt.push_str(&mark(last.reasoning.as_deref().unwrap_or("")));
            if !last.content.is_empty() {
                prompt.push('\n');
                prompt.push_str(syntax.close);
                prompt.push_str("\n\n");
                prompt.push_str(&mark(&last.content));
            }
        }
        None => prompt.push_str(&mark(&last.content)),
    }
    prompt
}
