//! Field types that take several JSON shapes: one string or many, text or parts, tokens or text.
//!
//! Each is a visitor rather than an untagged enum: an untagged enum buffers its input and loses
//! the path of the element at fault.

use std::fmt;
use std::marker::PhantomData;

use engine::TokenId;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// Items of a list of texts or prompts in one request: OpenAI's limit for embeddings.
pub const ITEMS_MAX: usize = 2048;

/// One string or an array of strings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Strings(pub Vec<String>);

/// Text to complete or to embed: text, texts, tokens, or lists of tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompt {
    /// One or more texts.
    Texts(Vec<String>),
    /// One or more lists of token ids.
    Tokens(Vec<Vec<TokenId>>),
}

/// Text of a message: a string or an array of parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Plain text.
    Text(String),
    /// Parts, of which only text can be used.
    Parts(Vec<Part>),
}

/// One part of a message's content.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(remote = "Self")]
pub struct Part {
    /// `text`; for assistants also `refusal`. Others are refused.
    #[serde(rename = "type")]
    pub kind: String,
    /// The text of a part of type `text`.
    #[serde(default)]
    pub text: Option<String>,
    /// The text of a part of type `refusal`.
    #[serde(default)]
    pub refusal: Option<String>,
}

/// A word, or an object of type `T`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WordOr<T> {
    /// For example `auto`.
    Word(String),
    /// For example a named tool.
    Object(T),
}

/// A whole number; `3.0` counts, since some clients have no integers.
///
/// # Errors
/// When the value is no number, has a fraction, or does not fit.
pub fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    struct Whole;
    impl<'de> Visitor<'de> for Whole {
        type Value = Option<i64>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an integer")
        }
        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_none<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Self::Value, D::Error> {
            inner.deserialize_any(self)
        }
        fn visit_i64<E: de::Error>(self, value: i64) -> Result<Self::Value, E> {
            Ok(Some(value))
        }
        fn visit_u64<E: de::Error>(self, value: u64) -> Result<Self::Value, E> {
            i64::try_from(value)
                .map(Some)
                .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(value), &self))
        }
        fn visit_f64<E: de::Error>(self, value: f64) -> Result<Self::Value, E> {
            // From 2^53 on f64 skips integers, so that the one that was meant is not known.
            let bound = 53_f64.exp2();
            if value.fract() != 0.0 || !(-bound..bound).contains(&value) {
                return Err(E::invalid_type(de::Unexpected::Float(value), &self));
            }
            #[allow(clippy::cast_possible_truncation)]
            Ok(Some(value as i64))
        }
    }
    deserializer.deserialize_option(Whole)
}

impl<'de> Deserialize<'de> for Strings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seen;
        impl<'de> Visitor<'de> for Seen {
            type Value = Strings;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of strings")
            }
            fn visit_str<E: de::Error>(self, value: &str) -> Result<Strings, E> {
                Ok(Strings(vec![value.to_owned()]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Strings, A::Error> {
                let mut strings = Vec::new();
                while let Some(next) = list.next_element()? {
                    push_bounded(&mut strings, next)?;
                }
                Ok(Strings(strings))
            }
        }
        deserializer.deserialize_any(Seen)
    }
}

fn push_bounded<T, E: de::Error>(list: &mut Vec<T>, item: T) -> Result<(), E> {
    if list.len() >= ITEMS_MAX {
        return Err(E::custom(format_args!("more than {ITEMS_MAX} items")));
    }
    list.push(item);
    Ok(())
}

/// First element of a prompt's array: it decides what the others must be.
enum First {
    Text(String),
    Token(TokenId),
    Tokens(Vec<TokenId>),
}

impl<'de> Deserialize<'de> for First {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seen;
        impl<'de> Visitor<'de> for Seen {
            type Value = First;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a token id, or an array of token ids")
            }
            fn visit_str<E: de::Error>(self, value: &str) -> Result<First, E> {
                Ok(First::Text(value.to_owned()))
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<First, E> {
                token(value).map(First::Token)
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<First, E> {
                token(i64::try_from(value).unwrap_or(i64::MAX)).map(First::Token)
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<First, E> {
                whole_token(value).map(First::Token)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<First, A::Error> {
                rest(list, Vec::new()).map(First::Tokens)
            }
        }
        deserializer.deserialize_any(Seen)
    }
}

fn token<E: de::Error>(value: i64) -> Result<TokenId, E> {
    TokenId::try_from(value)
        .map_err(|_| E::invalid_value(de::Unexpected::Signed(value), &"a token id"))
}

fn whole_token<E: de::Error>(value: f64) -> Result<TokenId, E> {
    // Saturates, and a saturated value is no token id.
    #[allow(clippy::cast_possible_truncation)]
    let whole = value as i64;
    if value.fract() == 0.0 {
        token(whole)
    } else {
        Err(E::invalid_type(de::Unexpected::Float(value), &"a token id"))
    }
}

/// A token id; `3.0` counts.
struct Token(TokenId);

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seen;
        impl Visitor<'_> for Seen {
            type Value = Token;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a token id")
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Token, E> {
                token(value).map(Token)
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Token, E> {
                token(i64::try_from(value).unwrap_or(i64::MAX)).map(Token)
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Token, E> {
                whole_token(value).map(Token)
            }
        }
        deserializer.deserialize_any(Seen)
    }
}

/// `tokens` and what is left of `list`.
fn rest<'de, A: SeqAccess<'de>>(
    mut list: A,
    mut tokens: Vec<TokenId>,
) -> Result<Vec<TokenId>, A::Error> {
    while let Some(Token(next)) = list.next_element()? {
        tokens.push(next);
    }
    Ok(tokens)
}

/// A list of token ids.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tokens(pub Vec<TokenId>);

impl<'de> Deserialize<'de> for Tokens {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seen;
        impl<'de> Visitor<'de> for Seen {
            type Value = Tokens;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of token ids")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Tokens, A::Error> {
                rest(list, Vec::new()).map(Tokens)
            }
        }
        deserializer.deserialize_any(Seen)
    }
}

impl<'de> Deserialize<'de> for Prompt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seen;
        impl<'de> Visitor<'de> for Seen {
            type Value = Prompt;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, an array of strings, or an array of token ids")
            }
            fn visit_str<E: de::Error>(self, value: &str) -> Result<Prompt, E> {
                Ok(Prompt::Texts(vec![value.to_owned()]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Prompt, A::Error> {
                match list.next_element::<First>()? {
                    None => Ok(Prompt::Texts(Vec::new())),
                    Some(First::Text(text)) => {
                        let mut texts = vec![text];
                        while let Some(next) = list.next_element()? {
                            push_bounded(&mut texts, next)?;
                        }
                        Ok(Prompt::Texts(texts))
                    }
                    Some(First::Token(token)) => Ok(Prompt::Tokens(vec![rest(list, vec![token])?])),
                    Some(First::Tokens(tokens)) => {
                        let mut lists = vec![tokens];
                        while let Some(Tokens(next)) = list.next_element()? {
                            push_bounded(&mut lists, next)?;
                        }
                        Ok(Prompt::Tokens(lists))
                    }
                }
            }
        }
        deserializer.deserialize_any(Seen)
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seen;
        impl<'de> Visitor<'de> for Seen {
            type Value = Content;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of content parts")
            }
            fn visit_str<E: de::Error>(self, value: &str) -> Result<Content, E> {
                Ok(Content::Text(value.to_owned()))
            }
            fn visit_string<E: de::Error>(self, value: String) -> Result<Content, E> {
                Ok(Content::Text(value))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Content, A::Error> {
                let mut parts = Vec::new();
                while let Some(next) = list.next_element()? {
                    push_bounded(&mut parts, next)?;
                }
                Ok(Content::Parts(parts))
            }
        }
        deserializer.deserialize_any(Seen)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for WordOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seen<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Seen<T> {
            type Value = WordOr<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an object")
            }
            fn visit_str<E: de::Error>(self, value: &str) -> Result<WordOr<T>, E> {
                Ok(WordOr::Word(value.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<WordOr<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(WordOr::Object)
            }
        }
        deserializer.deserialize_any(Seen(PhantomData))
    }
}

/// Implements `Deserialize` for types that derive it with `#[serde(remote = "Self")]`, so that
/// only JSON objects are taken: a derived struct would also take an array of its fields in order.
macro_rules! objects_only {
    ($($name:ty),* $(,)?) => {$(
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Seen;
                impl<'de> serde::de::Visitor<'de> for Seen {
                    type Value = $name;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("an object")
                    }
                    fn visit_map<A: serde::de::MapAccess<'de>>(
                        self,
                        map: A,
                    ) -> Result<$name, A::Error> {
                        <$name>::deserialize(serde::de::value::MapAccessDeserializer::new(map))
                    }
                }
                deserializer.deserialize_map(Seen)
            }
        }
    )*};
}
pub(crate) use objects_only;

objects_only!(Part);
