//! Owns the list of news that others have and this node lacks, and whom to ask for it when.

use std::collections::BTreeMap;

use super::{MISSING_MAX, MISSING_MS, WANT_LEN_MAX, WANT_MS, WANT_TRIES_MAX};
use crate::NodeId;

/// Most nodes that are remembered to have the same piece.
const SOURCES_MAX: usize = 4;

/// How long a piece waits when its source has enough to answer already.
const PACE_MS: u64 = 100;

#[derive(Debug)]
struct Lack {
    sources: Vec<NodeId>,
    ask_at_ms: u64,
    tries: u8,
    /// It should have come along the tree.
    strayed: bool,
}

/// How a missing piece is to be got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lacking {
    /// It should come along the tree; if it does not, whoever has it joins the tree.
    Strayed,
    /// It may be on its way.
    Late,
    /// It comes only when asked for.
    Offered,
}

/// What to ask one node for.
#[derive(Debug, Default)]
pub(super) struct Ask {
    pub(super) hashes: Vec<u64>,
    /// Something of it should have come along the tree.
    pub(super) graft: bool,
}

/// By hash.
#[derive(Debug, Default)]
pub(super) struct Missing {
    lacks: BTreeMap<u64, Lack>,
    next_at_ms: Option<u64>,
}

impl Missing {
    /// `source` has this piece.
    pub(super) fn note(&mut self, hash: u64, source: NodeId, lacking: Lacking, now_ms: u64) {
        let ask_at_ms = match lacking {
            Lacking::Strayed | Lacking::Late => now_ms + MISSING_MS,
            Lacking::Offered => now_ms,
        };
        if let Some(lack) = self.lacks.get_mut(&hash) {
            if lack.sources.len() < SOURCES_MAX && !lack.sources.contains(&source) {
                lack.sources.push(source);
            }
        } else if self.lacks.len() < MISSING_MAX {
            let lack = Lack {
                sources: vec![source],
                ask_at_ms,
                tries: 0,
                strayed: lacking == Lacking::Strayed,
            };
            self.lacks.insert(hash, lack);
            self.wake_by(ask_at_ms);
        }
    }

    /// The piece came, or something later did.
    pub(super) fn found(&mut self, hash: u64) {
        self.lacks.remove(&hash);
    }

    pub(super) fn len(&self) -> usize {
        self.lacks.len()
    }

    /// When [`due`](Self::due) has something to say.
    pub(super) fn next_at_ms(&self) -> Option<u64> {
        self.next_at_ms
    }

    /// Whom to ask for what now. `is_open` says who can be asked.
    pub(super) fn due(
        &mut self,
        now_ms: u64,
        is_open: impl Fn(NodeId) -> bool,
    ) -> BTreeMap<NodeId, Ask> {
        let mut asks: BTreeMap<NodeId, Ask> = BTreeMap::new();
        if self.next_at_ms.is_none_or(|at| at > now_ms) {
            return asks;
        }
        self.next_at_ms = None;
        let mut next_at_ms = u64::MAX;
        self.lacks.retain(|&hash, lack| {
            if lack.ask_at_ms <= now_ms {
                lack.sources.retain(|source| is_open(*source));
                if lack.sources.is_empty() || lack.tries >= WANT_TRIES_MAX {
                    return false;
                }
                let source = lack.sources[usize::from(lack.tries) % lack.sources.len()];
                let ask = asks.entry(source).or_default();
                if ask.hashes.len() < WANT_LEN_MAX {
                    ask.hashes.push(hash);
                    ask.graft |= lack.strayed;
                    lack.tries += 1;
                    lack.ask_at_ms = now_ms + WANT_MS;
                } else {
                    lack.ask_at_ms = now_ms + PACE_MS;
                }
            }
            next_at_ms = next_at_ms.min(lack.ask_at_ms);
            true
        });
        if !self.lacks.is_empty() {
            self.wake_by(next_at_ms);
        }
        asks
    }

    fn wake_by(&mut self, at_ms: u64) {
        self.next_at_ms = Some(self.next_at_ms.map_or(at_ms, |next| next.min(at_ms)));
    }
}
