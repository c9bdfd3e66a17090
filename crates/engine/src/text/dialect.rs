//! Which syntax a model uses for tool calls and for reasoning, read off its chat template.
//!
//! Owns the table of known syntaxes. Reading an answer in one of them is `parse`'s work.

/// The tags around a model's reasoning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReasoningTags {
    /// Opens it.
    pub open: &'static str,
    /// Ends it.
    pub close: &'static str,
}

const TAGS: [ReasoningTags; 6] = [
    ReasoningTags {
        open: "<think>",
        close: "</think>",
    },
    ReasoningTags {
        open: "[THINK]",
        close: "[/THINK]",
    },
    ReasoningTags {
        open: "<mm:think>",
        close: "</mm:think>",
    },
    ReasoningTags {
        open: "<seed:think>",
        close: "</seed:think>",
    },
    ReasoningTags {
        open: "◁think▷",
        close: "◁/think▷",
    },
    ReasoningTags {
        open: "<|open|>think<|sep|>",
        close: "<|close|>think<|sep|>",
    },
];

/// Around a tool's result, in the Hermes form and those made after it.
pub(super) const RESULT_TAGS: [&str; 2] = ["<tool_response>", "</tool_response>"];

/// How a model writes tool calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallSyntax {
    /// JSON objects (or a list of them) with name and arguments, after an opening marker;
    /// streamed by our own scanner.
    Json {
        /// Texts that open a call.
        open: &'static [&'static str],
        /// Texts that may end it.
        close: &'static [&'static str],
        /// Whether an answer that starts with a call's JSON object counts without a marker.
        bare: bool,
    },
    /// A block that is read by a parser of `dynamo-parsers` once it is complete.
    Block {
        /// The parser's name.
        parser: &'static str,
        /// Texts that open a block.
        open: &'static [&'static str],
        /// Texts that end it.
        close: &'static [&'static str],
    },
    /// `[name(argument=value)]` as the whole answer.
    Pythonic,
    /// OpenAI's channels (gpt-oss).
    Harmony,
}

/// The Hermes form, also used where a model's own form is not known.
pub const HERMES: CallSyntax = CallSyntax::Json {
    open: &["<tool_call>"],
    close: &["</tool_call>"],
    bare: false,
};

const LLAMA: CallSyntax = CallSyntax::Json {
    open: &["<|python_tag|>"],
    close: &["<|eom_id|>"],
    bare: true,
};

/// A model's syntax for tool calls and reasoning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    /// Tool calls.
    pub calls: CallSyntax,
    /// Reasoning; `None` if the model has none apart from its answer.
    pub reasoning: Option<ReasoningTags>,
}

impl Default for Dialect {
    fn default() -> Self {
        Self {
            calls: HERMES,
            reasoning: Some(TAGS[0]),
        }
    }
}

/// One line of the table: all needles in the template's text mean this syntax.
struct Family(&'static [&'static str], CallSyntax);

/// Ordered: what is more specific comes first.
const FAMILIES: &[Family] = &[
    Family(&["<|channel|>", "<|message|>"], CallSyntax::Harmony),
    Family(
        &["DSML", "tool_calls>"],
        CallSyntax::Block {
            parser: "deepseek_v4",
            open: &["<｜DSML｜tool_calls>"],
            close: &["</｜DSML｜tool_calls>"],
        },
    ),
    Family(
        &["DSML", "function_calls>"],
        CallSyntax::Block {
            parser: "deepseek_v3_2",
            open: &["<｜DSML｜function_calls>"],
            close: &["</｜DSML｜function_calls>"],
        },
    ),
    Family(
        &["<｜tool▁calls▁begin｜>", "```json"],
        CallSyntax::Block {
            parser: "deepseek_v3",
            open: &["<｜tool▁calls▁begin｜>"],
            close: &["<｜tool▁calls▁end｜>"],
        },
    ),
    Family(
        &["<｜tool▁calls▁begin｜>"],
        CallSyntax::Block {
            parser: "deepseek_v3_1",
            open: &["<｜tool▁calls▁begin｜>"],
            close: &["<｜tool▁calls▁end｜>"],
        },
    ),
    Family(
        &["<|tool_calls_section_begin|>"],
        CallSyntax::Block {
            parser: "kimi_k2",
            open: &[
                "<|tool_calls_section_begin|>",
                "<|tool_call_section_begin|>",
            ],
            close: &["<|tool_calls_section_end|>", "<|tool_call_section_end|>"],
        },
    ),
    Family(
        &["]<]minimax[>["],
        CallSyntax::Block {
            parser: "minimax_m3",
            open: &["]<]minimax[>[<tool_call>"],
            close: &["]<]minimax[>[</tool_call>"],
        },
    ),
    Family(
        &["<minimax:tool_call>"],
        CallSyntax::Block {
            parser: "minimax_m2",
            open: &["<minimax:tool_call>"],
            close: &["</minimax:tool_call>"],
        },
    ),
    Family(
        &["<arg_key>"],
        CallSyntax::Block {
            parser: "glm47",
            open: &["<tool_call>"],
            close: &["</tool_call>"],
        },
    ),
    Family(
        &["<function=", "<parameter="],
        CallSyntax::Block {
            parser: "qwen3_coder",
            open: &["<tool_call>", "<function="],
            close: &["</tool_call>"],
        },
    ),
    Family(
        &["<|tool_call>"],
        CallSyntax::Block {
            parser: "gemma4",
            open: &["<|tool_call>"],
            close: &["<tool_call|>"],
        },
    ),
    Family(
        &["<|tool_call_start|>"],
        CallSyntax::Block {
            parser: "pythonic",
            open: &["<|tool_call_start|>"],
            close: &["<|tool_call_end|>"],
        },
    ),
    Family(
        &["[TOOL_CALLS]"],
        CallSyntax::Json {
            open: &["[TOOL_CALLS]"],
            close: &["[/TOOL_CALLS]"],
            bare: false,
        },
    ),
    Family(
        &["<|tool_call|>"],
        CallSyntax::Json {
            open: &["<|tool_call|>", "<tool_call>"],
            close: &["<|/tool_call|>", "</tool_call>"],
            bare: false,
        },
    ),
    Family(
        &["functools["],
        CallSyntax::Json {
            open: &["functools"],
            close: &[],
            bare: false,
        },
    ),
    Family(
        &["<TOOLCALL>"],
        CallSyntax::Json {
            open: &["<TOOLCALL>"],
            close: &["</TOOLCALL>"],
            bare: false,
        },
    ),
    Family(
        &["<tool_calls>"],
        CallSyntax::Json {
            open: &["<tool_calls>"],
            close: &["</tool_calls>"],
            bare: false,
        },
    ),
    Family(&["<tool_call>"], HERMES),
    Family(&["<|python_tag|>"], LLAMA),
    Family(&["ipython", "parameters"], LLAMA),
    Family(&["func_name1(params_name1"], CallSyntax::Pythonic),
];

impl Dialect {
    /// The syntax that the template `source` speaks; Hermes where it says nothing.
    #[must_use]
    pub fn detect(source: &str) -> Self {
        let calls = FAMILIES
            .iter()
            .find(|Family(needles, _)| needles.iter().all(|needle| source.contains(needle)))
            .map_or(HERMES, |Family(_, calls)| *calls);
        let named = TAGS
            .iter()
            .find(|tags| source.contains(tags.close) || source.contains(tags.open));
        let reasoning = match calls {
            CallSyntax::Harmony => None,
            // Templates that say nothing of reasoning may still serve a model that thinks.
            _ => Some(*named.unwrap_or(&TAGS[0])),
        };
        Self { calls, reasoning }
    }

    /// The same reasoning with calls in the Hermes form.
    #[must_use]
    pub fn with_hermes_calls(self) -> Self {
        Self {
            calls: HERMES,
            ..self
        }
    }

    /// Texts with a meaning in this syntax. A model may have them as special tokens, which must
    /// then reach the parser as text.
    #[must_use]
    pub fn markers(&self) -> Vec<&'static str> {
        let mut markers = self.text_markers();
        match self.calls {
            CallSyntax::Json { open, .. } if open.contains(&"[TOOL_CALLS]") => {
                markers.extend(["[ARGS]", "[CALL_ID]"]);
            }
            CallSyntax::Block { parser, .. } => markers.extend(inner_markers(parser)),
            CallSyntax::Harmony => markers.extend(super::parse::HARMONY_MARKERS),
            _ => {}
        }
        markers
    }

    /// Those of [`Dialect::markers`] that may stand in an answer's text: around calls and around
    /// reasoning. Harmony has none, as its markers begin and end messages.
    pub(super) fn text_markers(&self) -> Vec<&'static str> {
        let mut markers: Vec<&'static str> = match self.calls {
            CallSyntax::Json { open, close, .. } | CallSyntax::Block { open, close, .. } => {
                open.iter().chain(close).copied().collect()
            }
            CallSyntax::Pythonic | CallSyntax::Harmony => Vec::new(),
        };
        if let Some(tags) = self.reasoning {
            markers.extend([tags.open, tags.close]);
        }
        markers
    }
}

/// Markers inside a block that models have as tokens of their own.
fn inner_markers(parser: &str) -> &'static [&'static str] {
    match parser {
        "deepseek_v3" | "deepseek_v3_1" => &[
            "<｜tool▁call▁begin｜>",
            "<｜tool▁call▁end｜>",
            "<｜tool▁sep｜>",
        ],
        "deepseek_v3_2" | "deepseek_v4" => &["｜DSML｜"],
        "kimi_k2" => &[
            "<|tool_call_begin|>",
            "<|tool_call_end|>",
            "<|tool_call_argument_begin|>",
        ],
        "glm47" => &["<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"],
        "minimax_m3" => &["]<]minimax[>["],
        "gemma4" => &["<|\"|>"],
        _ => &[],
    }
}

/// Whether a template uses OpenAI's channels.
pub(super) fn is_harmony(source: &str) -> bool {
    Dialect::detect(source).calls == CallSyntax::Harmony
}

/// The tags of a block of reasoning that `prompt` ends in, just opened.
pub(super) fn opens_reasoning(prompt: &str) -> Option<ReasoningTags> {
    let prompt = prompt.trim_end();
    TAGS.iter()
        .copied()
        .find(|tags| prompt.ends_with(tags.open))
}
