//! A constraint that begins with a call: what a model writes is free until it opens one, and free again
//! after it.
//!
//! Owns what is allowed inside the call. In free text nothing is computed. Nothing here refuses an answer:
//! where a call can't be followed, the rest of it is read as it comes.

use std::collections::HashSet;
use std::sync::Arc;

use llguidance::Matcher;
use toktrie::SimpleVob;

use crate::TokenId;

use super::watch::Watch;
use super::{Vocabulary, apply};

/// Follows one answer.
#[derive(Clone)]
pub(super) struct Lazy {
    vocabulary: Vocabulary,
    /// Control tokens whose text the parser sees.
    shown: Arc<HashSet<TokenId>>,
    watch: Watch,
    /// The grammar of what follows a marker, before its first token.
    grammar: Box<Matcher>,
    /// Whether a call may follow another.
    parallel: bool,
    phase: Phase,
}

#[derive(Clone)]
enum Phase {
    /// Text, in which a call may begin.
    Free,
    /// A call.
    Call {
        matcher: Box<Matcher>,
        /// It may be complete: what follows is its, if it fits, else text.
        may_end: bool,
    },
    /// The only call is complete.
    Over,
    /// A call could not be followed.
    Off,
}

impl Lazy {
    pub(super) fn new(
        vocabulary: Vocabulary,
        shown: Arc<HashSet<TokenId>>,
        watch: Watch,
        grammar: Matcher,
        parallel: bool,
    ) -> Self {
        Self {
            vocabulary,
            shown,
            watch,
            grammar: Box::new(grammar),
            parallel,
            phase: Phase::Free,
        }
    }

    /// Forbids what does not fit, inside a call.
    pub(super) fn mask(&mut self, logits: &mut [f32]) {
        let Phase::Call {
            matcher,
            may_end: false,
        } = &mut self.phase
        else {
            return;
        };
        match matcher.compute_mask_or_eos() {
            Ok(allowed) if leaves_any(&allowed, logits) => apply(&allowed, logits),
            Ok(_) => self.give_up("none of the tokens that fit is possible"),
            Err(error) => self.give_up(&error.to_string()),
        }
    }

    /// Takes `token`, which ends nothing, as the answer's next.
    pub(super) fn accept(&mut self, token: u32) {
        match std::mem::replace(&mut self.phase, Phase::Off) {
            Phase::Free => self.read(token),
            Phase::Call { matcher, may_end } => self.follow(matcher, may_end, token),
            Phase::Over => self.phase = Phase::Over,
            Phase::Off => {}
        }
    }

    /// Whether `token`, which ends nothing, may come next.
    pub(super) fn allows(&mut self, token: u32) -> bool {
        match &mut self.phase {
            Phase::Call {
                matcher,
                may_end: false,
            } => matcher.validate_tokens(&[token]).is_ok_and(|n| n == 1),
            _ => true,
        }
    }

    /// Whether the answer may end here.
    pub(super) fn is_accepting(&self) -> bool {
        !matches!(self.phase, Phase::Call { may_end: false, .. })
    }

    /// Whether the only call of the answer is complete.
    pub(super) fn is_finished(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    fn read(&mut self, token: u32) {
        self.phase = Phase::Free;
        let id = TokenId::try_from(token).unwrap_or(TokenId::MAX);
        if self.vocabulary.is_special(id) && !self.shown.contains(&id) {
            return;
        }
        let Some(rest) = self.watch.push(self.vocabulary.bytes(token)) else {
            return;
        };
        // A token may go on beyond the marker.
        let tokens = match self.vocabulary.trie() {
            _ if rest.is_empty() => Vec::new(),
            Ok(trie) => trie.0.greedy_tokenize(&rest),
            Err(error) => return self.give_up(&error.to_string()),
        };
        let mut matcher = self.grammar.clone();
        match matcher.try_consume_tokens(&tokens) {
            Ok(taken) if taken == tokens.len() => self.settle(matcher),
            Ok(_) => self.give_up("it begins otherwise"),
            Err(error) => self.give_up(&error.to_string()),
        }
    }

    fn follow(&mut self, mut matcher: Box<Matcher>, may_end: bool, token: u32) {
        match matcher.try_consume_tokens(&[token]) {
            Ok(1) => self.settle(matcher),
            Ok(_) if may_end => self.read(token),
            // Only an answer that was begun elsewhere has such tokens.
            Ok(_) => self.give_up("a token does not fit"),
            Err(error) => self.give_up(&error.to_string()),
        }
    }

    /// Goes on where `matcher` is.
    fn settle(&mut self, mut matcher: Box<Matcher>) {
        let stopped = matcher.is_stopped();
        let may_end = stopped || matcher.is_accepting().unwrap_or(false);
        self.phase = match (may_end, stopped) {
            (true, _) if !self.parallel => Phase::Over,
            (_, true) => Phase::Free,
            (may_end, false) => Phase::Call { matcher, may_end },
        };
    }

    fn give_up(&mut self, reason: &str) {
        tracing::debug!(reason, "a tool call is not constrained");
        self.phase = Phase::Off;
    }
}

/// Whether a token of `allowed` is possible. A bias or a ban may have left none.
fn leaves_any(allowed: &SimpleVob, logits: &[f32]) -> bool {
    let mut chunks = logits.chunks(32).zip(allowed.as_slice());
    chunks.any(|(chunk, word)| {
        let mut logits = chunk.iter().enumerate();
        logits.any(|(bit, logit)| word >> bit & 1 == 1 && *logit > f32::NEG_INFINITY)
    })
}
