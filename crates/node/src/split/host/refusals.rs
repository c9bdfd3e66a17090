//! Why other machines do not run all of a model, and with how much context one would: its owner is told that where the
//! model waits here. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use mesh::NodeId;

/// Fewer tokens of context are of no use: no machine takes a model up with them that was trained for more.
const CONTEXT_MIN: u32 = 2_048;

/// What comes before the part of a reason that says what to do.
const HINT: &str = "; hint: ";

/// Why a machine does not run all of a model.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Loss {
    reason: String,
    /// With so many tokens of context it says that it would; always fewer than were asked for, and enough to be of use.
    context_tokens_max: Option<u32>,
}

impl Loss {
    /// It refuses, and has said before that it would run it with a context of `said` tokens, where `asked` were asked for.
    /// What makes no sense counts as nothing.
    pub(super) fn refusal(reason: String, said: Option<u32>, asked: u32) -> Self {
        let sensible = CONTEXT_MIN.min(asked)..asked;
        Self {
            reason,
            context_tokens_max: said.filter(|tokens| sensible.contains(tokens)),
        }
    }
}

impl From<String> for Loss {
    fn from(reason: String) -> Self {
        Self {
            reason,
            context_tokens_max: None,
        }
    }
}

impl From<&str> for Loss {
    fn from(reason: &str) -> Self {
        reason.to_owned().into()
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)?;
        match self.context_tokens_max {
            Some(tokens) => write!(f, "{HINT}--ctx-size {tokens}"),
            None => Ok(()),
        }
    }
}

/// A machine that would run all of a model with less context.
#[derive(Debug, PartialEq, Eq)]
struct Offer {
    /// What people call it.
    name: String,
    context_tokens: u32,
}

/// What machines would do that have refused. As many as a mesh has members.
#[derive(Debug, Default)]
pub(super) struct Offers(BTreeMap<NodeId, Offer>);

impl Offers {
    /// A machine, which people call `name`, does not run all of the model.
    pub(super) fn note(&mut self, node: NodeId, name: &str, loss: &Loss) {
        match loss.context_tokens_max {
            Some(context_tokens) => {
                let name = name.to_owned();
                self.0.insert(
                    node,
                    Offer {
                        name,
                        context_tokens,
                    },
                );
            }
            None => {
                self.0.remove(&node);
            }
        }
    }

    /// Why a model waits, with the most context that one of these machines would run all of it with, and one hint; `None`:
    /// none of them would. What others have said is forgotten.
    pub(super) fn complete(&mut self, reason: &str, nodes: &BTreeSet<NodeId>) -> Option<String> {
        self.0.retain(|node, _| nodes.contains(node));
        let offer = self.0.values().max_by_key(|offer| offer.context_tokens)?;
        let (name, tokens) = (&offer.name, offer.context_tokens);
        let (reason, other) = match reason.split_once(HINT) {
            Some((reason, hint)) => (reason, format!(", or {hint}")),
            None => (reason, String::new()),
        };
        Some(format!(
            "{reason}; {name} would run all of it with {tokens} tokens of context at most{HINT}\
             --ctx-size {tokens}{other}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId::from_bytes([number; 32])
    }

    fn refusal(said: u32) -> Loss {
        Loss::refusal("it has no memory for the model".into(), Some(said), 8_192)
    }

    #[test]
    fn a_refusal_says_what_to_do_where_less_context_would_have_room() {
        let check = |said: Option<u32>, expected: &str| {
            let loss = Loss::refusal("no room".into(), said, 8_192);
            assert_eq!(loss.to_string(), expected, "{said:?}");
        };
        check(Some(4_096), "no room; hint: --ctx-size 4096");
        check(Some(8_191), "no room; hint: --ctx-size 8191");
        check(Some(2_048), "no room; hint: --ctx-size 2048");
        check(None, "no room");
        // It is of no use, or as many were refused, or more.
        for said in [0, 1, 2_047, 8_192, 8_193, u32::MAX] {
            check(Some(said), "no room");
        }
        // As many as that machine wants were asked for.
        for asked in [0, 1, 512, 2_048] {
            let loss = Loss::refusal("no room".into(), Some(asked.min(511)), asked);
            assert_eq!(loss, Loss::from("no room"), "{asked}");
        }
    }

    #[test]
    fn the_most_that_is_offered_is_told_where_the_model_waits() {
        let all = BTreeSet::from([1, 2, 3].map(node));
        let mut offers = Offers::default();
        let waits = "needs 5 GB";
        assert_eq!(offers.complete(waits, &all), None);
        offers.note(node(1), "attic", &refusal(3_072));
        offers.note(node(2), "cellar", &refusal(4_096));
        offers.note(node(3), "shed", &Loss::from("it is gone"));
        let told = |name: &str, tokens: u32| {
            Some(format!(
                "needs 5 GB; {name} would run all of it with {tokens} tokens of context at most; \
                 hint: --ctx-size {tokens}"
            ))
        };
        assert_eq!(offers.complete(waits, &all), told("cellar", 4_096));
        // It says something else by now.
        offers.note(node(2), "cellar", &refusal(2_048));
        assert_eq!(offers.complete(waits, &all), told("attic", 3_072));
        offers.note(node(1), "attic", &Loss::from("it is gone"));
        assert_eq!(offers.complete(waits, &all), told("cellar", 2_048));
        // That was long ago.
        assert_eq!(offers.complete(waits, &BTreeSet::new()), None);
        assert_eq!(offers.complete(waits, &all), None);
    }

    #[test]
    fn there_is_one_hint() {
        let mut offers = Offers::default();
        offers.note(node(1), "attic", &refusal(4_096));
        let waits = "needs 5 GB; hint: add one with 2 GB, or take a smaller context";
        assert_eq!(
            offers.complete(waits, &BTreeSet::from([node(1)])).unwrap(),
            "needs 5 GB; attic would run all of it with 4096 tokens of context at most; \
             hint: --ctx-size 4096, or add one with 2 GB, or take a smaller context"
        );
    }
}
