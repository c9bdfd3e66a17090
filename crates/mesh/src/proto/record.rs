//! Owns what is known of one member, and how a piece of news about it compares.

use std::sync::Arc;

use super::{AUTHOR_BURST, AUTHOR_REFILL_MS};
use crate::announcement::Signed;

/// How a member stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Alive,
    /// Declared dead.
    Dead,
    /// Said goodbye.
    Left,
    /// Its last announcement ran out here, or this node lost everybody at once. That is no death: this
    /// node may be the one that is cut off, so it tells nobody, and believes the next who holds it
    /// for alive.
    Expired,
}

/// What is known of one member.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) incarnation: u64,
    pub(super) sequence: u64,
    pub(super) standing: Standing,
    /// The last announcement, kept after a death for its addresses. `None` if only the death is known.
    pub(super) signed: Option<Arc<Signed>>,
    /// When it was said, on this node's clock; negative for before its start.
    pub(super) said_at_ms: i64,
    /// When it came to this node.
    pub(super) heard_at_ms: u64,
    /// Stands for it in digests and lists; 0 for what is told to nobody.
    pub(super) hash: u64,
    /// The change that last touched its route.
    pub(super) change: u64,
    allowance: u32,
    refilled_at_ms: u64,
}

/// How a piece of news compares with what is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judgement {
    New,
    /// Known exactly.
    Known,
    /// Something later is known.
    Stale,
    /// Too old, too many, or beyond a bound.
    Refused,
}

impl Record {
    /// Nothing is known yet.
    pub(super) fn empty(now_ms: u64) -> Self {
        Self {
            incarnation: 0,
            sequence: 0,
            standing: Standing::Dead,
            signed: None,
            said_at_ms: 0,
            heard_at_ms: now_ms,
            hash: 0,
            change: 0,
            allowance: AUTHOR_BURST,
            refilled_at_ms: now_ms,
        }
    }

    pub(super) fn is_alive(&self) -> bool {
        self.standing == Standing::Alive
    }

    /// How long ago it was said.
    pub(super) fn age_ms(&self, now_ms: u64) -> u64 {
        let age = i64::try_from(now_ms).unwrap_or(i64::MAX) - self.said_at_ms;
        u64::try_from(age).unwrap_or(0)
    }

    pub(super) fn route_hash(&self) -> u64 {
        match &self.signed {
            Some(signed) if self.is_alive() => signed.route_hash(),
            _ => 0,
        }
    }

    pub(super) fn ttl_ms(&self) -> u64 {
        let said = self.signed.as_ref().map(|s| s.announcement().ttl_ms);
        said.unwrap_or(0)
    }

    /// One announcement more of this author, unless there were too many of late.
    pub(super) fn take_allowance(&mut self, now_ms: u64) -> bool {
        let refills = now_ms.saturating_sub(self.refilled_at_ms) / AUTHOR_REFILL_MS;
        if refills > 0 {
            let more = u32::try_from(refills).unwrap_or(AUTHOR_BURST);
            self.allowance = self.allowance.saturating_add(more).min(AUTHOR_BURST);
            self.refilled_at_ms = now_ms;
        }
        let allowed = self.allowance > 0;
        self.allowance = self.allowance.saturating_sub(1);
        allowed
    }

    /// How news of this life, departure and sequence compares with it. `trusting` nodes hold a death
    /// for an opinion of whoever told it, and believe the next one who says otherwise.
    pub(super) fn judge(
        &self,
        (incarnation, gone, sequence): (u64, bool, u64),
        trusting: bool,
    ) -> Judgement {
        let opinion = match self.standing {
            Standing::Expired => true,
            Standing::Dead => trusting,
            Standing::Alive | Standing::Left => false,
        };
        if opinion && !gone {
            return if (incarnation, sequence) >= (self.incarnation, self.sequence) {
                Judgement::New
            } else {
                Judgement::Stale
            };
        }
        let departed = matches!(self.standing, Standing::Dead | Standing::Left);
        match (incarnation, gone).cmp(&(self.incarnation, departed)) {
            std::cmp::Ordering::Greater => Judgement::New,
            std::cmp::Ordering::Less => Judgement::Stale,
            std::cmp::Ordering::Equal if gone || sequence == self.sequence => Judgement::Known,
            std::cmp::Ordering::Equal if sequence > self.sequence => Judgement::New,
            std::cmp::Ordering::Equal => Judgement::Stale,
        }
    }
}
