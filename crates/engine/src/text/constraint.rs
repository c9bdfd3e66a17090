//! Constraints on what a model may write: JSON, JSON schemas, grammars, forced tool calls.
//!
//! Owns the choice of grammar for a request and the state that follows an answer token by
//! token. Calls that a model may make begin their constraint themselves (`lazy`). JSON and calls run
//! on `llguidance`, GBNF on our own automaton in `gbnf`. Sampling is elsewhere: this only says which
//! tokens are allowed.

mod lazy;
mod preamble;
mod schema;
mod tools;
mod vocabulary;
mod watch;

use std::collections::HashSet;
use std::sync::Arc;

use llguidance::Matcher;

use crate::{Chat, Error, Format, TokenId, ToolChoice};

use super::dialect::{CallSyntax, Dialect};
use super::gbnf;
use super::parse::Start;
use lazy::Lazy;
use preamble::{Preamble, PreambleState, Verdict};
pub(in crate::text) use vocabulary::Trie;
pub use vocabulary::Vocabulary;
use watch::Watch;

/// What an answer must look like; made once per request.
#[derive(Clone)]
pub struct Constraint {
    vocabulary: Vocabulary,
    preamble: Option<Arc<Preamble>>,
    grammar: Grammar,
}

#[derive(Clone)]
enum Grammar {
    Guidance(Box<Matcher>),
    Gbnf(gbnf::State),
    /// Only for calls, once they begin.
    Lazy(Box<Lazy>),
}

impl std::fmt::Debug for Constraint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Constraint")
            .field("preamble", &self.preamble.is_some())
            .finish_non_exhaustive()
    }
}

impl Constraint {
    /// The constraint for an answer to `chat`, `None` if it is free.
    ///
    /// `dialect` is the syntax in which calls must be written: see [`forced_dialect`]. `start`
    /// says whether the prompt has opened a block of reasoning; the constraint then applies
    /// after it.
    ///
    /// Errors: [`Error::InvalidRequest`] for schemas and grammars that can't be enforced.
    pub fn for_request(
        format: &Format,
        chat: &Chat,
        dialect: Dialect,
        start: Start,
        vocabulary: &Vocabulary,
    ) -> Result<Option<Self>, Error> {
        let harmony = dialect.calls == CallSyntax::Harmony;
        if let (Format::Grammar(source), false) = (format, forces_calls(chat)) {
            let mut constraint = Self::gbnf(source, vocabulary)?;
            constraint.preamble = match (harmony, start, dialect.reasoning) {
                (true, ..) => Some("<|channel|>final<|message|>"),
                (false, Start::Reasoning, Some(tags)) => Some(tags.close),
                _ => None,
            }
            .map(|marker| Arc::new(Preamble::new(marker, vocabulary)));
            return Ok(Some(constraint));
        }
        let Some(lark) = tools::grammar(format, chat, dialect, vocabulary)? else {
            return Ok(None);
        };
        let matcher = vocabulary
            .compile(&lark)
            .map_err(|reason| tools::blame(format, chat, &reason, vocabulary))?;
        let preamble = match (harmony, start, dialect.reasoning) {
            (false, Start::Reasoning, Some(tags)) => {
                Some(Arc::new(Preamble::new(tags.close, vocabulary)))
            }
            _ => None,
        };
        Ok(Some(Self {
            vocabulary: vocabulary.clone(),
            preamble,
            grammar: Grammar::Guidance(Box::new(matcher)),
        }))
    }

    /// The constraint for calls that an otherwise free answer to `chat` may hold: it begins behind the
    /// marker of a call. `shown` are the control tokens that the parser sees.
    ///
    /// `None` where no call is possible, and where none can be enforced: the dialect has no marker or no
    /// grammar, or a schema has none. What the model writes is then read as it comes.
    pub(in crate::text) fn for_calls(
        chat: &Chat,
        dialect: Dialect,
        start: Start,
        vocabulary: &Vocabulary,
        shown: &Arc<HashSet<TokenId>>,
    ) -> Option<Self> {
        if chat.tools.is_empty() || chat.tool_choice != ToolChoice::Auto {
            return None;
        }
        let opened = match tools::opened(chat, dialect.calls, vocabulary) {
            Ok(opened) => opened?,
            Err(error) => {
                tracing::debug!(%error, "tool calls are not constrained");
                return None;
            }
        };
        let grammar = match vocabulary.compile(&opened.lark) {
            Ok(grammar) => grammar,
            Err(reason) => {
                tracing::debug!(reason, "tool calls are not constrained");
                return None;
            }
        };
        let watch = Watch::new(opened.markers, dialect.reasoning, start);
        let (shown, parallel) = (Arc::clone(shown), chat.parallel_tool_calls);
        let lazy = Lazy::new(vocabulary.clone(), shown, watch, grammar, parallel);
        Some(Self {
            vocabulary: vocabulary.clone(),
            preamble: None,
            grammar: Grammar::Lazy(Box::new(lazy)),
        })
    }

    fn gbnf(source: &str, vocabulary: &Vocabulary) -> Result<Self, Error> {
        let grammar = gbnf::Automaton::new(source)
            .map_err(|error| Error::invalid("grammar", error.to_string()))?;
        Ok(Self {
            vocabulary: vocabulary.clone(),
            preamble: None,
            grammar: Grammar::Gbnf(gbnf::State::new(grammar, vocabulary.trie()?)),
        })
    }

    /// The state at the beginning of an answer.
    #[must_use]
    pub fn start(&self) -> ConstraintState {
        ConstraintState {
            vocabulary: self.vocabulary.clone(),
            preamble: self
                .preamble
                .as_ref()
                .map(|preamble| PreambleState::new(Arc::clone(preamble))),
            grammar: self.grammar.clone(),
            accepted: 0,
            finished: false,
        }
    }
}

/// Whether calls are forced, not only possible.
fn forces_calls(chat: &Chat) -> bool {
    !chat.tools.is_empty()
        && matches!(
            chat.tool_choice,
            ToolChoice::Required | ToolChoice::Named(_)
        )
}

/// The syntax in which a constraint lets the model write calls: its own where a grammar can
/// describe it well, else the Hermes form. The parser must read with the same.
#[must_use]
pub fn forced_dialect(dialect: Dialect, format: &Format, chat: &Chat) -> Dialect {
    let constrained = forces_calls(chat)
        || (matches!(format, Format::JsonObject | Format::JsonSchema(_)) && !chat.tools.is_empty());
    match dialect.calls {
        CallSyntax::Block { .. } | CallSyntax::Pythonic if constrained => {
            dialect.with_hermes_calls()
        }
        _ => dialect,
    }
}

/// Follows one answer. Clone it for further choices of the same request.
#[derive(Clone)]
pub struct ConstraintState {
    vocabulary: Vocabulary,
    preamble: Option<PreambleState>,
    grammar: Grammar,
    /// Tokens that the grammar has taken.
    accepted: usize,
    finished: bool,
}

impl std::fmt::Debug for ConstraintState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConstraintState")
            .field("accepted", &self.accepted)
            .field("finished", &self.finished)
            .finish_non_exhaustive()
    }
}

impl ConstraintState {
    /// Sets the logits of forbidden tokens to negative infinity. `logits[i]` is token `i`'s.
    ///
    /// End-of-text tokens stay only where the answer may end; where it must end, only they do.
    /// Errors: [`Error::Inference`] when the grammar has become too ambiguous to follow.
    pub fn mask(&mut self, logits: &mut [f32]) -> Result<(), Error> {
        if self.finished {
            self.vocabulary.keep_only_end(logits);
            return Ok(());
        }
        if let Some(preamble) = &self.preamble
            && !preamble.ended()
        {
            preamble.mask(logits, &self.vocabulary);
            return Ok(());
        }
        let mut allowed = match &mut self.grammar {
            Grammar::Guidance(matcher) => matcher.compute_mask_or_eos().map_err(inference)?,
            Grammar::Gbnf(state) => {
                let mut allowed = state.mask().map_err(inference)?;
                if state.is_accepting() {
                    for &token in self.vocabulary.end_tokens() {
                        allowed.allow_token(token);
                    }
                }
                allowed
            }
            Grammar::Lazy(lazy) => {
                lazy.mask(logits);
                return Ok(());
            }
        };
        if let Some(preamble) = &self.preamble {
            preamble.allow_gap(&mut allowed);
        }
        apply(&allowed, logits);
        Ok(())
    }

    /// Takes `token` as the answer's next.
    ///
    /// Errors: [`Error::Inference`] if it is not allowed here.
    pub fn accept(&mut self, token: TokenId) -> Result<(), Error> {
        if self.vocabulary.is_end(token) {
            if self.finished || self.allows(token) {
                self.finished = true;
                return Ok(());
            }
            return Err(Error::Inference(
                "the answer ended where its grammar does not allow it".into(),
            ));
        }
        let refused = || Error::Inference(format!("token {token} is not allowed by the grammar"));
        let index = self.vocabulary.index(token).ok_or_else(refused)?;
        if let Some(preamble) = &mut self.preamble {
            if !preamble.ended() {
                preamble.accept(self.vocabulary.bytes(index));
                return Ok(());
            }
            if preamble.takes_gap(self.vocabulary.bytes(index))
                && !grammar_allows(&mut self.grammar, index)?
            {
                preamble.accept_gap();
                return Ok(());
            }
            self.preamble = None;
        }
        match &mut self.grammar {
            Grammar::Guidance(matcher) => matcher.consume_token(index).map_err(inference)?,
            Grammar::Gbnf(state) => {
                if !state.accept(index).map_err(inference)? {
                    return Err(refused());
                }
            }
            Grammar::Lazy(lazy) => {
                lazy.accept(index);
                return Ok(());
            }
        }
        self.accepted += 1;
        Ok(())
    }

    /// Whether `token` may come next.
    pub fn allows(&mut self, token: TokenId) -> bool {
        if self.vocabulary.is_end(token) {
            return self.finished || self.is_accepting();
        }
        let Some(index) = self.vocabulary.index(token) else {
            return false;
        };
        if self.finished {
            return false;
        }
        if let Some(preamble) = &self.preamble {
            let bytes = self.vocabulary.bytes(index);
            if !preamble.ended() {
                return preamble.verdict(bytes) != Verdict::Forbidden;
            }
            if preamble.takes_gap(bytes) {
                return true;
            }
        }
        grammar_allows(&mut self.grammar, index).unwrap_or(false)
    }

    /// Whether the answer may end here.
    pub fn is_accepting(&mut self) -> bool {
        if self
            .preamble
            .as_ref()
            .is_some_and(|preamble| !preamble.ended())
        {
            return false;
        }
        match &mut self.grammar {
            Grammar::Guidance(matcher) => {
                !matcher.is_error()
                    && (matcher.is_stopped() || matcher.is_accepting().unwrap_or(false))
            }
            Grammar::Gbnf(state) => state.is_accepting(),
            Grammar::Lazy(lazy) => lazy.is_accepting(),
        }
    }

    /// Whether the answer has ended, or nothing but its end can follow.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        if self.finished {
            return true;
        }
        if self
            .preamble
            .as_ref()
            .is_some_and(|preamble| !preamble.ended())
        {
            return false;
        }
        match &self.grammar {
            Grammar::Guidance(matcher) => !matcher.is_error() && matcher.is_stopped(),
            Grammar::Gbnf(state) => state.is_over(),
            Grammar::Lazy(lazy) => lazy.is_finished(),
        }
    }

    /// Takes the last `tokens` back, as far as the grammar itself took them.
    ///
    /// Errors: [`Error::Inference`] beyond that (reasoning before the grammar and answers that are
    /// constrained only in calls can't be taken back); the state is then unchanged.
    pub fn rollback(&mut self, tokens: usize) -> Result<(), Error> {
        if tokens == 0 {
            return Ok(());
        }
        let mut tokens = tokens;
        let was_finished = std::mem::take(&mut self.finished);
        tokens -= usize::from(was_finished);
        if tokens > self.accepted {
            self.finished = was_finished;
            return Err(Error::Inference(
                "the constraint can't be taken back that far".into(),
            ));
        }
        match &mut self.grammar {
            Grammar::Guidance(matcher) if tokens > 0 => {
                matcher.rollback(tokens).map_err(inference)?;
            }
            Grammar::Guidance(_) | Grammar::Lazy(_) => {}
            Grammar::Gbnf(state) => state.rollback(tokens),
        }
        self.accepted -= tokens;
        Ok(())
    }
}

fn grammar_allows(grammar: &mut Grammar, token: u32) -> Result<bool, Error> {
    match grammar {
        Grammar::Guidance(matcher) => {
            if matcher.is_stopped() {
                return Ok(false);
            }
            Ok(matcher.validate_tokens(&[token]).map_err(inference)? == 1)
        }
        Grammar::Gbnf(state) => state.allows(token).map_err(inference),
        Grammar::Lazy(lazy) => Ok(lazy.allows(token)),
    }
}

fn inference(error: impl std::fmt::Display) -> Error {
    Error::Inference(format!("the grammar can't be followed: {error}"))
}

/// Forbids what is not in `allowed`. Tokens beyond its size (padding) are forbidden too.
fn apply(allowed: &toktrie::SimpleVob, logits: &mut [f32]) {
    let words = allowed.as_slice();
    for (chunk, at) in logits.chunks_mut(32).zip(0..) {
        let word = words.get(at).copied().unwrap_or(0);
        if word == u32::MAX {
            continue;
        }
        for (bit, logit) in chunk.iter_mut().enumerate() {
            if word >> bit & 1 == 0 {
                *logit = f32::NEG_INFINITY;
            }
        }
    }
}
