//! Which host has the beginning of a request in its KV cache, as far as the ingress knows. Pure.

use std::collections::VecDeque;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use engine::{Input, Request};

/// Beginnings that are remembered; each is two numbers and a host.
const KNOWN_MAX: usize = 2_048;

/// Beginnings of one request that are looked at: the newest messages of a long conversation are
/// what changes, so its first ones are told apart by the later of these.
const BEGINNINGS_MAX: usize = 64;

/// Text is compared in pieces of so many bytes, tokens in pieces of a quarter: about 250 tokens.
const PIECE_BYTES: usize = 1_024;

/// Bytes of text that a token stands for, about.
const TOKEN_BYTES: usize = 4;

/// A beginning of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Beginning {
    /// Stands for all of it.
    hash: u64,
    /// Its length; tokens count as four bytes.
    bytes: usize,
}

/// Remembers where requests went.
#[derive(Debug)]
pub(crate) struct Affinity<H> {
    /// Oldest first.
    known: VecDeque<(u64, H)>,
}

impl<H> Default for Affinity<H> {
    fn default() -> Self {
        Self {
            known: VecDeque::new(),
        }
    }
}

impl<H: Clone + PartialEq> Affinity<H> {
    /// The host that last had the longest known beginning of a request, and how many bytes that is.
    pub(crate) fn find(&self, beginnings: &[Beginning]) -> Option<(H, usize)> {
        beginnings.iter().rev().find_map(|beginning| {
            let known = self.known.iter().rev();
            let host = known.clone().find(|(hash, _)| *hash == beginning.hash);
            host.map(|(_, host)| (host.clone(), beginning.bytes))
        })
    }

    /// Notes that `host` got a request.
    pub(crate) fn note(&mut self, beginnings: &[Beginning], host: &H) {
        self.known
            .retain(|(hash, _)| !beginnings.iter().any(|beginning| beginning.hash == *hash));
        for beginning in beginnings {
            self.known.push_back((beginning.hash, host.clone()));
        }
        while self.known.len() > KNOWN_MAX {
            self.known.pop_front();
        }
    }

    /// Forgets a host that is gone: what it held is lost.
    pub(crate) fn forget(&mut self, host: &H) {
        self.known.retain(|(_, known)| known != host);
    }
}

/// Numbers that stand for ever longer beginnings of a request: equal ones mean that the beginnings
/// are equal, tools and settings of the template included.
pub(crate) fn beginnings(request: &Request) -> Vec<Beginning> {
    let mut hasher = DefaultHasher::new();
    request.model.to_lowercase().hash(&mut hasher);
    let mut found = Vec::new();
    match &request.input {
        Input::Chat(chat) => {
            for tool in &chat.tools {
                (&tool.name, &tool.description).hash(&mut hasher);
                let parameters = tool.parameters.as_ref().map(ToString::to_string);
                parameters.hash(&mut hasher);
            }
            for message in &chat.messages {
                (message.role as u8).hash(&mut hasher);
                pieces(message.content.as_bytes(), 1, &mut hasher, &mut found);
                message.tool_call_id.hash(&mut hasher);
                for call in &message.tool_calls {
                    (&call.name, &call.arguments).hash(&mut hasher);
                }
            }
        }
        Input::Text(text) => pieces(text.as_bytes(), 1, &mut hasher, &mut found),
        Input::Tokens(tokens) => pieces(tokens, TOKEN_BYTES, &mut hasher, &mut found),
    }
    found.truncate(BEGINNINGS_MAX);
    found
}

/// `bytes_each`: what one of `all` counts as.
fn pieces<T: Hash>(
    all: &[T],
    bytes_each: usize,
    hasher: &mut DefaultHasher,
    found: &mut Vec<Beginning>,
) {
    for piece in all.chunks(PIECE_BYTES / bytes_each) {
        if found.len() >= BEGINNINGS_MAX {
            return;
        }
        piece.hash(hasher);
        let before = found.last().map_or(0, |beginning| beginning.bytes);
        found.push(Beginning {
            hash: hasher.finish(),
            bytes: before + piece.len() * bytes_each,
        });
    }
}

#[cfg(test)]
mod tests {
    use engine::{Chat, Message};

    use super::*;

    fn chat(texts: &[&str]) -> Vec<Beginning> {
        let messages = texts.iter().map(|text| Message::user(*text)).collect();
        beginnings(&Request::new(
            "m",
            Input::Chat(Chat {
                messages,
                ..Chat::default()
            }),
        ))
    }

    #[test]
    fn the_longest_known_beginning_wins() {
        let mut affinity = Affinity::default();
        affinity.note(&chat(&["system", "one"]), &1);
        affinity.note(&chat(&["system", "two"]), &2);
        assert_eq!(
            affinity.find(&chat(&["system", "one", "more"])),
            Some((1, 9))
        );
        // The shorter one was last seen at the second host.
        assert_eq!(affinity.find(&chat(&["system", "three"])), Some((2, 6)));
        assert_eq!(affinity.find(&chat(&["other"])), None);
        affinity.forget(&2);
        assert_eq!(affinity.find(&chat(&["system", "two"])), None);
    }

    #[test]
    fn memory_is_bounded() {
        let mut affinity = Affinity::default();
        for index in 0..5_000 {
            affinity.note(&chat(&[&format!("{index}"), "x"]), &index);
        }
        assert_eq!(affinity.known.len(), KNOWN_MAX);
        assert!(chat(&["long text "; 3_000]).len() <= BEGINNINGS_MAX);
        assert_eq!(affinity.find(&chat(&["4999", "x"])), Some((4999, 5)));
    }

    #[test]
    fn what_the_model_sees_makes_the_difference() {
        let text = |text: &str| beginnings(&Request::new("m", Input::Text(text.into())));
        let long = "a".repeat(PIECE_BYTES);
        let one = text(&format!("{long}b"));
        let other = text(&format!("{long}c"));
        assert_eq!(
            (one.len(), one[0] == other[0], one[1] == other[1]),
            (2, true, false)
        );
        let tokens = beginnings(&Request::new("m", Input::Tokens(vec![1; 300])));
        let bytes: Vec<_> = tokens.iter().map(|beginning| beginning.bytes).collect();
        assert_eq!(bytes, [1_024, 1_200]);
        let of_other_model = beginnings(&Request::new("n", Input::Text("a".into())));
        assert_ne!(of_other_model, text("a"));
    }
}
