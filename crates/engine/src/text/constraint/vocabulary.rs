//! A model's tokens as bytes, and the trie over them that constraints walk.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{InferenceCapabilities, TokEnv, TokRxInfo, TokTrie, TokenizerEnv};
use llguidance::{Matcher, ParserFactory, panic_utils};

use crate::text::template::on_large_stack;
use crate::{Error, TokenId};

/// Compiled grammars that are kept: programs tend to send the same schema again and again.
const CACHED_GRAMMARS_MAX: usize = 16;
/// Longest grammar that is worth keeping, bytes.
const CACHED_GRAMMAR_BYTES_MAX: usize = 64 << 10;
/// llguidance's memory per lexer state is 1 to 2 kB, so that one grammar stays under 50 MB.
const LEXER_STATES_MAX: usize = 25_000;
/// Symbols in one compiled grammar; about 100 bytes each.
const GRAMMAR_SYMBOLS_MAX: usize = 200_000;
/// Work units of llguidance's regex construction for one grammar, about 20 ms.
const LEXER_FUEL_MAX: u64 = 1_000_000;
/// Work units of one mask in the lexer, about 15 ms.
const STEP_LEXER_FUEL_MAX: u64 = 200_000;
/// Earley items of one mask, about 5 ms.
const STEP_ITEMS_MAX: usize = 100_000;

/// The tokens of a model. Cheap to clone.
#[derive(Clone)]
pub struct Vocabulary(Arc<Tokens>);

struct Tokens {
    bytes: Vec<Vec<u8>>,
    special: Vec<bool>,
    end: Vec<u32>,
    engine: OnceLock<Result<GrammarEngine, String>>,
}

/// What is built when the first constraint is asked for: it takes a moment and some memory.
struct GrammarEngine {
    factory: ParserFactory,
    trie: Arc<Trie>,
    cache: Mutex<VecDeque<(String, Matcher)>>,
}

/// The trie over all tokens.
pub(in crate::text) struct Trie(pub(in crate::text) TokTrie);

impl TokenizerEnv for Trie {
    fn tok_trie(&self) -> &TokTrie {
        &self.0
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<u32> {
        self.0.greedy_tokenize(bytes)
    }

    fn tokenize_is_canonical(&self) -> bool {
        false
    }
}

impl std::fmt::Debug for Vocabulary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vocabulary")
            .field("tokens", &self.0.bytes.len())
            .finish_non_exhaustive()
    }
}

impl Vocabulary {
    /// `token_bytes[i]` are the bytes that token `i` stands for (a special token's: its name),
    /// `special[i]` says whether it is a control token, which text never matches, and `eog` are
    /// the tokens that end an answer.
    #[must_use]
    pub fn new(token_bytes: Vec<Vec<u8>>, special: Vec<bool>, eog: Vec<TokenId>) -> Self {
        let mut special = special;
        special.resize(token_bytes.len(), false);
        let mut end: Vec<u32> = eog
            .into_iter()
            .filter_map(|token| u32::try_from(token).ok())
            .filter(|token| (*token as usize) < token_bytes.len())
            .collect();
        end.sort_unstable();
        end.dedup();
        for token in &end {
            special[*token as usize] = true;
        }
        Self(Arc::new(Tokens {
            bytes: token_bytes,
            special,
            end,
            engine: OnceLock::new(),
        }))
    }

    /// Number of tokens.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.bytes.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.bytes.is_empty()
    }

    /// Whether `token` ends an answer.
    #[must_use]
    pub fn is_end(&self, token: TokenId) -> bool {
        u32::try_from(token).is_ok_and(|token| self.0.end.binary_search(&token).is_ok())
    }

    /// Whether `token` is a control token.
    #[must_use]
    pub fn is_special(&self, token: TokenId) -> bool {
        self.index(token)
            .is_some_and(|index| self.0.special[index as usize])
    }

    /// The control token that is spelled `text`.
    #[must_use]
    pub fn special_token(&self, text: &str) -> Option<TokenId> {
        let at = (0..self.len())
            .find(|at| self.0.special[*at] && self.0.bytes[*at] == text.as_bytes())?;
        TokenId::try_from(at).ok()
    }

    /// The spellings of all control tokens, and of tokens in the form of one or that are one of
    /// `markers`: some models have them for the form of their prompts, but list them as text.
    pub(in crate::text) fn special_texts(&self, markers: &[&str]) -> impl Iterator<Item = &[u8]> {
        let is_marker = move |bytes: &[u8]| markers.iter().any(|marker| marker.as_bytes() == bytes);
        let tokens = self.0.bytes.iter().zip(&self.0.special);
        tokens
            .filter(move |(bytes, special)| **special || looks_special(bytes) || is_marker(bytes))
            .map(|(bytes, _)| bytes.as_slice())
    }

    /// Whether some token is spelled `text`.
    #[must_use]
    pub fn has_token(&self, text: &str) -> bool {
        self.0.bytes.iter().any(|bytes| bytes == text.as_bytes())
    }

    pub(super) fn end_tokens(&self) -> &[u32] {
        &self.0.end
    }

    pub(super) fn index(&self, token: TokenId) -> Option<u32> {
        u32::try_from(token)
            .ok()
            .filter(|index| (*index as usize) < self.len())
    }

    pub(in crate::text) fn bytes(&self, index: u32) -> &[u8] {
        self.0.bytes.get(index as usize).map_or(&[], Vec::as_slice)
    }

    /// Tokens that stand for text, with their bytes.
    pub(super) fn text_tokens(&self) -> impl Iterator<Item = (u32, &[u8])> {
        (0..)
            .zip(&self.0.bytes)
            .filter(|(index, bytes)| !bytes.is_empty() && !self.0.special[*index as usize])
            .map(|(index, bytes)| (index, bytes.as_slice()))
    }

    pub(super) fn keep_only_end(&self, logits: &mut [f32]) {
        let mut end = self.0.end.iter().peekable();
        for (index, logit) in (0_u32..).zip(logits.iter_mut()) {
            if end.next_if(|token| **token == index).is_none() {
                *logit = f32::NEG_INFINITY;
            }
        }
    }

    /// The trie over the tokens.
    pub(super) fn trie(&self) -> Result<Arc<Trie>, Error> {
        Ok(Arc::clone(&self.engine().map_err(Error::Unsupported)?.trie))
    }

    /// Compiles a Lark grammar; the error says what is wrong with it.
    pub(super) fn compile(&self, lark: &str) -> Result<Matcher, String> {
        let engine = self.engine()?;
        let mut cache = engine.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = cache.iter().position(|(key, _)| key == lark)
            && let Some(entry) = cache.remove(at)
        {
            let matcher = entry.1.deep_clone();
            cache.push_front(entry);
            return Ok(matcher);
        }
        drop(cache);
        let matcher = self.compile_new(engine, lark)?;
        if lark.len() <= CACHED_GRAMMAR_BYTES_MAX {
            let mut cache = engine.cache.lock().unwrap_or_else(PoisonError::into_inner);
            cache.push_front((lark.to_owned(), matcher.deep_clone()));
            cache.truncate(CACHED_GRAMMARS_MAX);
        }
        Ok(matcher)
    }

    fn compile_new(&self, engine: &GrammarEngine, lark: &str) -> Result<Matcher, String> {
        let grammar = TopLevelGrammar::from_lark(lark.to_owned());
        // Its message can hold the whole grammar or a backtrace: only the first line matters.
        let first_line = |error: String| error.lines().next().unwrap_or_default().to_owned();
        // It reads schemas by recursion.
        let create = || {
            panic_utils::catch_unwind(std::panic::AssertUnwindSafe(|| {
                engine.factory.create_parser(grammar)
            }))
        };
        let parser = on_large_stack(create)
            .ok_or_else(|| "no thread to compile the grammar".to_owned())?
            .map_err(|error| first_line(format!("{error:#}")))?;
        let mut matcher = Matcher::new(Ok(parser));
        // What is too complex or can't be fulfilled often shows at the first mask only.
        matcher
            .compute_mask_or_eos()
            .map_err(|error| first_line(error.to_string()))?;
        Ok(matcher)
    }

    fn engine(&self) -> Result<&GrammarEngine, String> {
        self.0
            .engine
            .get_or_init(|| self.build_engine())
            .as_ref()
            .map_err(Clone::clone)
    }

    fn build_engine(&self) -> Result<GrammarEngine, String> {
        let Some(&end) = self.0.end.first() else {
            return Err(
                "the model has no end-of-text token, so its output can't be constrained".into(),
            );
        };
        let words: Vec<Vec<u8>> = self
            .0
            .bytes
            .iter()
            .zip(&self.0.special)
            .map(|(bytes, special)| {
                if *special && !bytes.is_empty() {
                    // Keeps control tokens apart from text that spells their name.
                    std::iter::once(TokTrie::SPECIAL_TOKEN_MARKER)
                        .chain(bytes.iter().copied())
                        .collect()
                } else {
                    bytes.clone()
                }
            })
            .collect();
        let size = u32::try_from(words.len()).map_err(|error| error.to_string())?;
        let trie = TokTrie::from(&TokRxInfo::new(size, end), &words).with_eos_tokens(&self.0.end);
        let trie = Arc::new(Trie(trie));
        let env: TokEnv = Arc::clone(&trie) as TokEnv;
        let mut factory = ParserFactory::new(&env, InferenceCapabilities::default(), &slices())
            .map_err(|error| error.to_string())?;
        factory.quiet();
        let limits = factory.limits_mut();
        limits.initial_lexer_fuel = LEXER_FUEL_MAX;
        limits.step_lexer_fuel = STEP_LEXER_FUEL_MAX;
        limits.step_max_items = STEP_ITEMS_MAX;
        limits.max_lexer_states = LEXER_STATES_MAX;
        limits.max_grammar_size = GRAMMAR_SYMBOLS_MAX;
        limits.verbose_errors = false;
        Ok(GrammarEngine {
            factory,
            trie,
            cache: Mutex::new(VecDeque::new()),
        })
    }
}

/// Whether a token has the form of a control token, as programs that make GGUF files see it.
fn looks_special(bytes: &[u8]) -> bool {
    let between = |open: &str, close: &str| {
        bytes.len() > open.len() + close.len()
            && bytes.starts_with(open.as_bytes())
            && bytes.ends_with(close.as_bytes())
    };
    between("<|", "|>") || between("<｜", "｜>")
}

/// Sets of tokens that are checked as one inside JSON texts.
fn slices() -> Vec<String> {
    llguidance::earley::SlicedBiasComputer::general_slices()
}
