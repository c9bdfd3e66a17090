//! Reads a model's answer as it is generated: content, reasoning and tool calls apart.
//!
//! Owns the streaming state. Text is passed on as soon as it can't be part of a marker; whatever
//! can't be read as a call comes back as content, so nothing is lost. Only where an answer is cut
//! off inside a call, the call's own markup is not content. The syntaxes themselves are in
//! `dialect`.

mod block;
mod calls;
mod counter;
mod harmony;
mod markers;

use std::sync::Arc;

use crate::{Chat, FinishReason, ToolCallDelta, ToolChoice};

use super::dialect::{CallSyntax, Dialect};
use calls::{CallScanner, Scan};
use counter::CallCounter;
use harmony::Harmony;
pub(super) use harmony::MARKERS as HARMONY_MARKERS;
use markers::{BLANK_BYTES_MAX, Found, find_first, without_blank_end};

/// Longest block or unfinished call that is held back, bytes. What is longer is content:
/// no real call comes near, and the text so far must not be searched again and again.
const HELD_BYTES_MAX: usize = 1 << 20;

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Text of the answer.
    Content(String),
    /// Reasoning, apart from the answer.
    Reasoning(String),
    /// A part of a tool call.
    ToolCall(ToolCallDelta),
}

/// Where an answer starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With its content.
    Content,
    /// Inside a block of reasoning that the prompt has opened.
    Reasoning,
}

/// Reads one answer. Cheap to clone before the first [`OutputParser::push`].
#[derive(Debug, Clone)]
pub struct OutputParser {
    dialect: Dialect,
    tools: Option<Tools>,
    mode: Mode,
    /// Text that is not decided yet.
    pending: String,
    /// Nothing but white space has been seen since the start, a call, or reasoning.
    fresh: bool,
    /// Some content or a call has come.
    answered: bool,
    /// A block of reasoning has ended.
    thought: bool,
    calls: CallCounter,
    out: Vec<Piece>,
}

/// What is known of the tools that may be called.
#[derive(Debug, Clone)]
struct Tools {
    names: Arc<[String]>,
    definitions: Arc<[block::Definition]>,
    /// The answer must be a call, by grammar.
    forced: bool,
}

#[derive(Debug, Clone)]
enum Mode {
    /// No reading at all: everything is content.
    Plain,
    Content,
    Reasoning,
    Call(Box<CallScanner>),
    /// After a call in JSON: its closing marker may follow.
    AfterCall,
    /// Inside a block; how much of it has been searched for its end, bytes.
    Block(usize),
    Harmony(Box<Harmony>),
}

impl OutputParser {
    /// A parser for the answer to `chat`, whose prompt ended as `start` says.
    #[must_use]
    pub fn new(dialect: Dialect, chat: &Chat, start: Start) -> Self {
        let offered = !chat.tools.is_empty() && chat.tool_choice != ToolChoice::None;
        let tools = offered.then(|| Tools {
            names: chat.tools.iter().map(|tool| tool.name.clone()).collect(),
            definitions: chat.tools.iter().map(block::definition).collect(),
            forced: chat.tool_choice != ToolChoice::Auto,
        });
        let mode = match (dialect.calls, start) {
            (CallSyntax::Harmony, _) => Mode::Harmony(Box::default()),
            (_, Start::Reasoning) => Mode::Reasoning,
            (_, Start::Content) => Mode::Content,
        };
        Self {
            dialect,
            tools,
            mode,
            pending: String::new(),
            fresh: true,
            answered: false,
            thought: false,
            calls: CallCounter::new(chat.parallel_tool_calls),
            out: Vec::new(),
        }
    }

    /// A parser that passes everything on as content.
    #[must_use]
    pub fn plain() -> Self {
        let mut parser = Self::new(Dialect::default(), &Chat::default(), Start::Content);
        parser.mode = Mode::Plain;
        parser
    }

    /// Reads more text.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        if text.is_empty() {
            return Vec::new();
        }
        if matches!(self.mode, Mode::Plain) {
            return vec![Piece::Content(text.to_owned())];
        }
        self.pending.push_str(text);
        while self.step() {}
        self.take_out()
    }

    /// The answer has ended for `reason`: returns what was held back.
    ///
    /// Where it was cut off ([`FinishReason::Length`]) or had to be a call, the beginning of a
    /// call is no content: it is a call if its name has come, else nothing.
    pub fn finish(&mut self, reason: FinishReason) -> Vec<Piece> {
        while self.step() {}
        let forced = self.tools.as_ref().is_some_and(|tools| tools.forced);
        let cut = forced || reason == FinishReason::Length;
        let mut rest = std::mem::take(&mut self.pending);
        match std::mem::replace(&mut self.mode, Mode::Plain) {
            Mode::Plain => self.content(&rest),
            Mode::Content => {
                if cut && self.tools.is_some() {
                    rest.truncate(self.before_marker(&rest));
                }
                // White space after calls is not an answer.
                if !(self.calls.any() && rest.trim().is_empty()) {
                    self.content(&rest);
                }
            }
            Mode::Reasoning => {
                let close = self.dialect.reasoning.map(|tags| tags.close);
                if let (true, Found::Perhaps(at)) = (cut, find_first(&rest, close.as_slice())) {
                    rest.truncate(at);
                }
                self.reasoning(rest.trim_end());
            }
            // Only separators and the beginning of a marker wait here.
            Mode::AfterCall if cut => {}
            Mode::AfterCall => self.content(rest.trim()),
            Mode::Call(mut scanner) => {
                let scan = scanner.end(cut, forced || self.calls.any());
                self.apply(scan);
                self.content(&rest);
            }
            Mode::Block(_) => self.block(&rest, Some(cut)),
            Mode::Harmony(mut harmony) => {
                harmony.finish(&rest, cut, &mut self.calls, &mut self.out);
            }
        }
        self.take_out()
    }

    /// Length of `rest` without the beginning of a call or of reasoning at its end.
    fn before_marker(&self, rest: &str) -> usize {
        if self.bare_call(rest.trim_start()) == Bare::Perhaps {
            return 0;
        }
        match find_first(rest, &self.content_markers().0) {
            Found::At(at, _) | Found::Perhaps(at) => at,
        }
    }

    /// Whether any tool call was read.
    #[must_use]
    pub fn called_tools(&self) -> bool {
        self.calls.any()
    }

    /// Whether the answer is inside reasoning at this moment.
    #[must_use]
    pub fn in_reasoning(&self) -> bool {
        match &self.mode {
            Mode::Reasoning => true,
            Mode::Harmony(harmony) => harmony.in_reasoning(),
            _ => false,
        }
    }

    /// Does one thing with the pending text; `false` when more text is needed.
    fn step(&mut self) -> bool {
        match &mut self.mode {
            Mode::Plain => false,
            Mode::Content => self.step_content(),
            Mode::Reasoning => self.step_reasoning(),
            Mode::Call(_) => self.step_call(),
            Mode::AfterCall => self.step_after_call(),
            Mode::Block(searched) => {
                let searched = *searched;
                self.step_block(searched)
            }
            Mode::Harmony(harmony) => {
                let text = std::mem::take(&mut self.pending);
                self.pending = harmony.push(text, &mut self.calls, &mut self.out);
                false
            }
        }
    }

    fn step_content(&mut self) -> bool {
        if self.pending.is_empty() {
            return false;
        }
        if self.fresh {
            let trimmed = self.pending.trim_start();
            if trimmed.is_empty() {
                if self.pending.len() > BLANK_BYTES_MAX {
                    let blank = std::mem::take(&mut self.pending);
                    self.content(&blank);
                }
                return false;
            }
            if self.tools.is_some() && !self.answered {
                match self.bare_call(trimmed) {
                    Bare::Yes => {
                        self.pending = trimmed.to_owned();
                        self.enter_call("");
                        return true;
                    }
                    Bare::Pythonic => {
                        self.mode = Mode::Block(0);
                        return true;
                    }
                    Bare::Perhaps => return false,
                    Bare::No => {}
                }
            }
        }
        let (markers, reasoning_open) = self.content_markers();
        match find_first(&self.pending, &markers) {
            Found::At(at, marker) => {
                let before = self.pending[..at].to_owned();
                let is_reasoning = Some(marker) == reasoning_open;
                if is_reasoning && !before.trim().is_empty() {
                    // Reasoning only starts an answer; later its tag is just text.
                    let end = at + marker.len();
                    let text: String = self.pending.drain(..end).collect();
                    self.content(&text);
                    return true;
                }
                self.content(before.trim_end());
                self.pending.drain(..at + marker.len());
                if is_reasoning {
                    self.mode = Mode::Reasoning;
                    self.fresh = true;
                } else {
                    self.enter_call(marker);
                }
                true
            }
            Found::Perhaps(at) => {
                let sure = if self.tools.is_some() {
                    without_blank_end(&self.pending[..at])
                } else {
                    at
                };
                if sure == 0 || (self.fresh && self.pending[..sure].trim().is_empty()) {
                    return false;
                }
                let text: String = self.pending.drain(..sure).collect();
                self.content(&text);
                false
            }
        }
    }

    /// Markers that matter in content, and which of them opens reasoning.
    fn content_markers(&self) -> (Vec<&'static str>, Option<&'static str>) {
        let mut markers = self.call_markers().to_vec();
        let open = match self.dialect.reasoning {
            Some(tags) if !self.answered && !self.thought => Some(tags.open),
            _ => None,
        };
        markers.extend(open);
        (markers, open)
    }

    /// Markers that open a call; none if no call is possible.
    fn call_markers(&self) -> &'static [&'static str] {
        match self.dialect.calls {
            CallSyntax::Json { open, .. } | CallSyntax::Block { open, .. }
                if self.tools.is_some() =>
            {
                open
            }
            _ => &[],
        }
    }

    /// Whether the answer starts with a call that has no marker.
    fn bare_call(&self, text: &str) -> Bare {
        let Some(tools) = &self.tools else {
            return Bare::No;
        };
        match self.dialect.calls {
            CallSyntax::Json { bare: true, .. } => match text.chars().next() {
                Some('{') => Bare::Yes,
                Some(_) => Bare::No,
                None => Bare::Perhaps,
            },
            CallSyntax::Pythonic => tools.names.iter().fold(
                if text.is_empty() {
                    Bare::Perhaps
                } else {
                    Bare::No
                },
                |bare, name| {
                    let call = format!("[{name}(");
                    if text.starts_with(&call) {
                        Bare::Pythonic
                    } else if bare == Bare::No && call.starts_with(text) {
                        Bare::Perhaps
                    } else {
                        bare
                    }
                },
            ),
            _ => Bare::No,
        }
    }

    fn enter_call(&mut self, marker: &'static str) {
        self.mode = match self.dialect.calls {
            CallSyntax::Block { .. } => {
                self.pending.insert_str(0, marker);
                Mode::Block(0)
            }
            _ => {
                let known = match &self.tools {
                    // Without a marker only the name tells a call from ordinary JSON.
                    Some(tools) if marker.is_empty() => Some(Arc::clone(&tools.names)),
                    _ => None,
                };
                Mode::Call(Box::new(CallScanner::new(marker, known)))
            }
        };
    }

    fn step_reasoning(&mut self) -> bool {
        let Some(tags) = self.dialect.reasoning else {
            self.mode = Mode::Content;
            return true;
        };
        if self.fresh {
            // Repeated opening tags after one in the prompt.
            loop {
                let trimmed = self.pending.trim_start();
                if trimmed.is_empty() {
                    self.pending.clear();
                    return false;
                }
                if tags.open.starts_with(trimmed) && trimmed != tags.open {
                    return false;
                }
                let rest = trimmed.strip_prefix(tags.open);
                let done = rest.is_none();
                self.pending = rest.unwrap_or(trimmed).to_owned();
                if done {
                    break;
                }
            }
            self.fresh = false;
        }
        match find_first(&self.pending, &[tags.close]) {
            Found::At(at, marker) => {
                let text = self.pending[..at].trim_end().to_owned();
                self.reasoning(&text);
                self.pending.drain(..at + marker.len());
                self.mode = Mode::Content;
                self.fresh = true;
                self.thought = true;
                true
            }
            Found::Perhaps(at) => {
                let sure = without_blank_end(&self.pending[..at]);
                let text: String = self.pending.drain(..sure).collect();
                self.reasoning(&text);
                false
            }
        }
    }

    fn step_call(&mut self) -> bool {
        let Mode::Call(scanner) = &mut self.mode else {
            return false;
        };
        let text = std::mem::take(&mut self.pending);
        let scan = scanner.push(&text);
        let over = scan.over;
        if !over && scanner.held_bytes() > HELD_BYTES_MAX {
            let scan = scanner.end(false, false);
            self.mode = Mode::Content;
            self.apply(scan);
            return false;
        }
        if over {
            self.mode = if scan.failed {
                Mode::Content
            } else {
                Mode::AfterCall
            };
        }
        self.apply(scan);
        over
    }

    fn apply(&mut self, scan: Scan) {
        for delta in scan.deltas {
            self.answered = true;
            self.fresh = true;
            self.calls.emit(delta, &mut self.out);
        }
        if !scan.raw.is_empty() {
            self.content(&scan.raw);
        }
        self.pending.insert_str(0, &scan.rest);
    }

    fn step_after_call(&mut self) -> bool {
        let CallSyntax::Json { open, close, bare } = self.dialect.calls else {
            self.mode = Mode::Content;
            return true;
        };
        let skipped = self
            .pending
            .trim_start_matches(|char: char| char.is_whitespace() || char == ';' || char == ',');
        if skipped.is_empty() {
            if self.pending.len() > BLANK_BYTES_MAX {
                self.pending.clear();
            }
            return false;
        }
        if let Some(marker) = close.iter().find(|marker| skipped.starts_with(*marker)) {
            self.pending = skipped[marker.len()..].to_owned();
            self.mode = Mode::Content;
            self.fresh = true;
            return true;
        }
        if close
            .iter()
            .chain(open)
            .any(|marker| marker.starts_with(skipped) && *marker != skipped)
        {
            return false;
        }
        // Several objects after one marker.
        if skipped.starts_with('{') && (bare || !close.is_empty()) {
            self.pending = skipped.to_owned();
            self.enter_call("");
            return true;
        }
        self.mode = Mode::Content;
        self.fresh = true;
        true
    }

    fn step_block(&mut self, searched: usize) -> bool {
        let close = match self.dialect.calls {
            CallSyntax::Block { close, .. } => close,
            // A list of calls is the whole answer.
            _ => &[],
        };
        let longest = close.iter().map(|marker| marker.len()).max().unwrap_or(0);
        let mut from = searched.saturating_sub(longest);
        while !self.pending.is_char_boundary(from) {
            from -= 1;
        }
        match find_first(&self.pending[from..], close) {
            Found::At(at, marker) => {
                let text: String = self.pending.drain(..from + at + marker.len()).collect();
                self.mode = Mode::Content;
                self.block(&text, None);
                true
            }
            Found::Perhaps(_) if self.pending.len() > HELD_BYTES_MAX => {
                let text = std::mem::take(&mut self.pending);
                self.mode = Mode::Content;
                self.content(&text);
                false
            }
            Found::Perhaps(_) => {
                self.mode = Mode::Block(self.pending.len());
                false
            }
        }
    }

    /// Reads a whole block, or with `Some(cut)` one that the answer ended in.
    fn block(&mut self, text: &str, ended: Option<bool>) {
        let (parser, open, close) = match self.dialect.calls {
            CallSyntax::Block {
                parser,
                open,
                close,
            } => (parser, open, close),
            _ => ("pythonic", &[][..], &[][..]),
        };
        let definitions = self.tools.as_ref().map(|tools| &tools.definitions[..]);
        match block::read(parser, text, definitions.unwrap_or(&[]), ended.is_some()) {
            None if ended == Some(true) => {}
            Some(read) => {
                // Not every parser takes the block's own markers out.
                let markers = open.iter().chain(close);
                let content = markers.fold(read.content, |text, marker| text.replace(marker, ""));
                self.content(content.trim_end());
                for call in read.calls {
                    let index = self.calls.begin();
                    self.calls.emit(
                        calls::Delta {
                            index_in_answer: index,
                            id: call.id,
                            name: Some(call.name),
                            arguments: call.arguments,
                        },
                        &mut self.out,
                    );
                }
                self.fresh = true;
                self.answered = true;
            }
            None => self.content(text),
        }
    }

    fn content(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        let text = if self.fresh && (self.answered || self.thought) {
            text.trim_start()
        } else {
            text
        };
        if text.is_empty() {
            return;
        }
        self.fresh = false;
        self.answered = true;
        match self.out.last_mut() {
            Some(Piece::Content(last)) => last.push_str(text),
            _ => self.out.push(Piece::Content(text.to_owned())),
        }
    }

    fn reasoning(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        match self.out.last_mut() {
            Some(Piece::Reasoning(last)) => last.push_str(text),
            _ => self.out.push(Piece::Reasoning(text.to_owned())),
        }
    }

    fn take_out(&mut self) -> Vec<Piece> {
        std::mem::take(&mut self.out)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bare {
    Yes,
    Pythonic,
    Perhaps,
    No,
}
