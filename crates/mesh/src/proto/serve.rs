//! Owns the answers to pulls: nothing, the changes, or the whole table in pages.

use super::links::Peer;
use super::message::{Message, Page, TableVersion};
use super::spread::item_bytes;
use super::state::State;
use super::table::Subject;
use super::{ITEMS_BYTES_SOFT, PULL_AGAIN_MS_MIN, PULL_MS_MIN, YOUNG_MS, timing};
use crate::NodeId;
use crate::announcement::ModelRate;

/// Pulls that are answered at once, one after the other: the pages of the largest table are 60.
const PULLS_BURST: u32 = 128;

/// How long a client that pulls no more counts as one, and its demand as real.
const CLIENT_MS: u64 = 120_000;

impl State {
    pub(super) fn on_pull(
        &mut self,
        from: NodeId,
        have: Option<TableVersion>,
        root: u64,
        whole: bool,
        rates: Vec<ModelRate>,
    ) {
        if !self.allow_pull(from, rates) {
            return;
        }
        let young = self.is_young();
        let next_ms = if young {
            PULL_AGAIN_MS_MIN
        } else {
            timing::pull_ms(self.clients_len())
        };
        let changes = self.table.changes();
        let version = changes.version();
        if root == changes.root() && !whole {
            self.send(from, Message::Unchanged { version, next_ms });
            return;
        }
        let page = match have {
            Some(have) if whole && changes.comes_from_here(have) => self.page(have.change, true),
            // All changes are told and still the tables differ: something was lost on the way.
            Some(have) if have.change != version.change && changes.reaches(have) => {
                self.page(have.change, false)
            }
            // Whoever the others know is not gone just because this node has not met them yet.
            _ => Page {
                restart: !young,
                ..self.page(0, true)
            },
        };
        self.send(from, Message::Table(Page { next_ms, ..page }));
    }

    /// Whether this node has just started and nobody has told it yet who else is there.
    fn is_young(&self) -> bool {
        let now_ms = self.now_ms();
        let told = self.bootstrap.is_empty() || self.links.are_settled(now_ms);
        !told && now_ms < self.started_at_ms + YOUNG_MS
    }

    fn allow_pull(&mut self, from: NodeId, rates: Vec<ModelRate>) -> bool {
        let now_ms = self.now_ms();
        let Some(peer) = self.peers.get_mut(&from) else {
            return false;
        };
        let since_ms = peer.pulled_at_ms.map_or(u64::MAX, |at| now_ms - at);
        let refill = u32::try_from(since_ms / PULL_MS_MIN).unwrap_or(u32::MAX);
        peer.pulls_allowed = peer.pulls_allowed.saturating_add(refill).min(PULLS_BURST);
        if peer.pulls_allowed == 0 {
            return false;
        }
        peer.pulls_allowed -= 1;
        peer.pulled_at_ms = Some(now_ms);
        if peer.rates != rates {
            peer.rates = rates;
            self.publisher.demand_changed();
        }
        true
    }

    /// The changes after `after` that fit into one message. A whole table names no departed.
    fn page(&self, after: u64, whole: bool) -> Page {
        let changes = self.table.changes();
        let mut version = changes.version();
        let (mut items, mut bytes, mut more) = (Vec::new(), 0, false);
        let mut told = after;
        for (change, subject) in changes.since(after) {
            if bytes >= ITEMS_BYTES_SOFT {
                (version.change, more) = (told, true);
                break;
            }
            told = change;
            let departed = match subject {
                Subject::Node(node) => self.table.alive(node).is_none(),
                _ => false,
            };
            if departed && whole {
                continue;
            }
            if let Some(item) = self.table.item(subject, self.now_ms()) {
                bytes += item_bytes(&item);
                items.push(item);
            }
        }
        Page {
            version,
            restart: false,
            more,
            items,
            next_ms: 0,
        }
    }

    /// Whether this peer pulled of late.
    pub(super) fn pulls(&self, peer: &Peer) -> bool {
        peer.pulled_at_ms
            .is_some_and(|at| at + CLIENT_MS > self.now_ms())
    }

    /// Connected nodes that pulled of late.
    pub(super) fn clients_len(&self) -> usize {
        self.peers.values().filter(|peer| self.pulls(peer)).count()
    }
}
