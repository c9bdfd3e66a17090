//! Tokens and text.

use std::ffi::c_char;

use llama_cpp_sys_2 as sys;

use crate::Token;
use crate::error::Error;

/// Texts from this length on are tokenised on a thread with a large stack, bytes: the regular
/// expressions of some pre-tokenisers recurse once per character.
const LARGE_TEXT_BYTES: usize = 16 << 10;
/// Stack of that thread, bytes. Virtual: only what is touched costs memory.
const LARGE_STACK_BYTES: usize = 2 << 30;

/// The vocabulary of a [`crate::Model`], which keeps it alive.
#[derive(Debug)]
pub struct Vocabulary {
    raw: *const sys::llama_vocab,
    tokens: u32,
    kind: sys::llama_vocab_type,
}

// SAFETY: a vocabulary is not changed after loading, and llama.cpp takes it as `const`.
unsafe impl Send for Vocabulary {}
// SAFETY: as above.
unsafe impl Sync for Vocabulary {}

impl Vocabulary {
    /// # Safety
    /// `model` is alive and outlives the result.
    pub(crate) unsafe fn of_model(model: *const sys::llama_model) -> Self {
        // SAFETY: the caller's promise.
        let raw = unsafe { sys::llama_model_get_vocab(model) };
        // SAFETY: the vocabulary belongs to the model.
        let tokens = u32::try_from(unsafe { sys::llama_vocab_n_tokens(raw) }).unwrap_or(0);
        // SAFETY: as above.
        let kind = unsafe { sys::llama_vocab_type(raw) };
        Self { raw, tokens, kind }
    }

    pub(crate) fn raw(&self) -> *const sys::llama_vocab {
        self.raw
    }

    /// Number of tokens.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tokens as usize
    }

    /// Whether there are no tokens.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tokens == 0
    }

    /// Whether `token` is one of this vocabulary.
    #[must_use]
    pub fn contains(&self, token: Token) -> bool {
        u32::try_from(token).is_ok_and(|t| t < self.tokens)
    }

    /// Whether text can be turned into tokens at all.
    #[must_use]
    pub fn has_tokenizer(&self) -> bool {
        self.kind != sys::LLAMA_VOCAB_TYPE_NONE
    }

    /// Turns text into tokens. `add_special` adds BOS and EOS where the model wants them; the names
    /// of special tokens inside `text` become those tokens if `parse_special`.
    ///
    /// # Errors
    /// [`Error::NoVocabulary`] without tokenizer, [`Error::Text`] for a text over 2 GiB.
    pub fn tokenize(
        &self,
        text: &str,
        add_special: bool,
        parse_special: bool,
    ) -> Result<Vec<Token>, Error> {
        if !self.has_tokenizer() {
            return Err(Error::NoVocabulary);
        }
        if text.len() < LARGE_TEXT_BYTES {
            return self.tokenize_here(text, add_special, parse_special);
        }
        std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("tokenize".into())
                .stack_size(LARGE_STACK_BYTES)
                .spawn_scoped(scope, || {
                    self.tokenize_here(text, add_special, parse_special)
                })
                .map_err(|_| Error::Text("no thread to tokenise a long text"))?
                .join()
                .map_err(|_| Error::Text("the tokenizer failed"))?
        })
    }

    fn tokenize_here(
        &self,
        text: &str,
        add_special: bool,
        parse_special: bool,
    ) -> Result<Vec<Token>, Error> {
        let length = i32::try_from(text.len()).map_err(|_| Error::Text("over 2 GiB"))?;
        // A token covers at least a byte, rarely less than three; two more for BOS and EOS.
        let mut tokens: Vec<Token> = vec![0; text.len() / 2 + 8];
        loop {
            let room = i32::try_from(tokens.len()).map_err(|_| Error::Text("over 2 GiB"))?;
            // SAFETY: both buffers are valid for the lengths given, which llama.cpp respects.
            let count = unsafe {
                sys::llama_tokenize(
                    self.raw,
                    text.as_ptr().cast::<c_char>(),
                    length,
                    tokens.as_mut_ptr(),
                    room,
                    add_special,
                    parse_special,
                )
            };
            match usize::try_from(count) {
                Ok(count) => {
                    tokens.truncate(count);
                    return Ok(tokens);
                }
                Err(_) if count == i32::MIN => return Err(Error::Text("too many tokens")),
                // The negative of the room needed.
                Err(_) => {
                    let needed = count.unsigned_abs() as usize;
                    if needed <= tokens.len() {
                        return Err(Error::Text("the tokenizer failed"));
                    }
                    tokens.resize(needed, 0);
                }
            }
        }
    }

    /// The bytes of a token; special tokens are spelled out if `special`, else empty.
    /// Empty for a token outside the vocabulary.
    #[must_use]
    pub fn token_bytes(&self, token: Token, special: bool) -> Vec<u8> {
        if !self.contains(token) || !self.has_tokenizer() {
            return Vec::new();
        }
        let mut bytes = vec![0u8; 32];
        loop {
            let room = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
            // SAFETY: the token is in range and the buffer valid for the length given.
            let count = unsafe {
                let buffer = bytes.as_mut_ptr().cast();
                sys::llama_token_to_piece(self.raw, token, buffer, room, 0, special)
            };
            match usize::try_from(count) {
                Ok(count) => {
                    bytes.truncate(count);
                    return bytes;
                }
                Err(_) => {
                    let needed = count.unsigned_abs() as usize;
                    if needed <= bytes.len() {
                        return Vec::new();
                    }
                    bytes.resize(needed, 0);
                }
            }
        }
    }

    /// Whether the token ends a generation.
    #[must_use]
    pub fn is_end(&self, token: Token) -> bool {
        // SAFETY: the token is in range.
        self.contains(token) && unsafe { sys::llama_vocab_is_eog(self.raw, token) }
    }

    /// Whether the token is a control token, which has no text of its own.
    #[must_use]
    pub fn is_control(&self, token: Token) -> bool {
        // SAFETY: the token is in range.
        self.contains(token) && unsafe { sys::llama_vocab_is_control(self.raw, token) }
    }

    /// Whether the token is spelled out as it stands although it is special (for example
    /// `<tool_call>`).
    #[must_use]
    pub fn is_user_defined(&self, token: Token) -> bool {
        self.contains(token)
            // SAFETY: the token is in range.
            && unsafe { sys::llama_vocab_get_attr(self.raw, token) }
                & sys::LLAMA_TOKEN_ATTR_USER_DEFINED
                != 0
    }

    /// Begin of sequence.
    #[must_use]
    pub fn bos(&self) -> Option<Token> {
        // SAFETY: the vocabulary is alive.
        Some(unsafe { sys::llama_vocab_bos(self.raw) }).filter(|t| self.contains(*t))
    }

    /// End of sequence.
    #[must_use]
    pub fn eos(&self) -> Option<Token> {
        // SAFETY: the vocabulary is alive.
        Some(unsafe { sys::llama_vocab_eos(self.raw) }).filter(|t| self.contains(*t))
    }

    /// End of turn.
    #[must_use]
    pub fn eot(&self) -> Option<Token> {
        // SAFETY: the vocabulary is alive.
        Some(unsafe { sys::llama_vocab_eot(self.raw) }).filter(|t| self.contains(*t))
    }

    /// Whether a text wants a BOS in front.
    #[must_use]
    pub fn adds_bos(&self) -> bool {
        // SAFETY: the vocabulary is alive.
        unsafe { sys::llama_vocab_get_add_bos(self.raw) }
    }
}
