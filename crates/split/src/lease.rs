//! A worker's leases: who may use how much of its memory, and for how long. Pure: events and the time
//! go in, effects come out.
//!
//! Memory counts as used from the grant until the stage is really gone ([`Event::Gone`]), however long
//! that takes after its lease ended. A ring has one lease: a newer epoch ends the older one, waits until
//! its memory is free, and only then is granted.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::fault::Refusal;
use crate::spec::RingId;

/// Most rings that a worker serves. Each has threads, streams and a KV cache of its own.
pub const RINGS_MAX: usize = 16;

/// Shortest lease: a host renews three times in it, over a bad link.
pub const LEASE_MIN: Duration = Duration::from_secs(5);

/// Longest lease: so long a dead host's memory may be out of use.
pub const LEASE_MAX: Duration = Duration::from_secs(120);

/// A host asks for a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask<H> {
    /// Who asks.
    pub host: H,
    /// For which ring.
    pub ring: RingId,
    /// For which life of it.
    pub epoch: u32,
    /// Bytes that the stage will take.
    pub bytes: u64,
    /// How long the lease shall hold; kept within [`LEASE_MIN`] and [`LEASE_MAX`].
    pub lease: Duration,
}

/// What happens to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<H> {
    /// See [`Ask`].
    Ask(Ask<H>),
    /// The host wants the lease to begin anew.
    Renew(RingId, u32),
    /// The host wants it no longer.
    Release(RingId, u32),
    /// The stage of an epoch is gone and its memory free, for whatever reason.
    Gone(RingId, u32),
    /// Time has passed.
    Time,
}

/// What the worker does about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Load the stage.
    Grant(RingId, u32),
    /// Tell the host why not.
    Refuse(RingId, u32, Refusal),
    /// Let the stage go, then say [`Event::Gone`].
    End(RingId, u32, Ending),
}

/// Why a lease ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The host said so.
    Released,
    /// It was not renewed.
    Expired,
    /// The ring has a newer epoch.
    Replaced,
}

/// One lease.
#[derive(Debug, Clone, Copy)]
struct Held {
    epoch: u32,
    bytes: u64,
    lease: Duration,
    ends: Duration,
    is_ending: bool,
}

/// What one ring has here.
#[derive(Debug, Clone)]
struct Entry<H> {
    host: H,
    current: Option<Held>,
    /// A newer epoch that waits for the memory of `current`.
    waiting: Option<Held>,
}

impl<H> Entry<H> {
    fn bytes(&self) -> u64 {
        let of = |held: &Option<Held>| held.map_or(0, |held| held.bytes);
        // They never hold memory at the same time.
        of(&self.current).max(of(&self.waiting))
    }

    fn newest(&self) -> Option<u32> {
        let newest = self.waiting.or(self.current);
        newest.map(|held| held.epoch)
    }
}

/// All leases of a worker.
#[derive(Debug, Clone)]
pub struct Table<H> {
    budget_bytes: u64,
    rings: BTreeMap<RingId, Entry<H>>,
}

impl<H: Copy + Eq> Table<H> {
    /// A worker that gives so much memory.
    #[must_use]
    pub fn new(budget_bytes: u64) -> Self {
        Self {
            budget_bytes,
            rings: BTreeMap::new(),
        }
    }

    /// Changes what the worker gives. Leases that were granted stay.
    pub fn set_budget(&mut self, budget_bytes: u64) {
        self.budget_bytes = budget_bytes;
    }

    /// Bytes that are leased, those of stages that are about to end among them.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        let bytes = self.rings.values().map(Entry::bytes);
        bytes.fold(0, u64::saturating_add)
    }

    /// Bytes that nobody has leased.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        self.budget_bytes.saturating_sub(self.used_bytes())
    }

    /// Rings that have something here.
    #[must_use]
    pub fn rings(&self) -> usize {
        self.rings.len()
    }

    /// When the next lease ends unless it is renewed.
    #[must_use]
    pub fn next_end(&self) -> Option<Duration> {
        let held = self.rings.values().flat_map(|e| [e.current, e.waiting]);
        let held = held.flatten().filter(|held| !held.is_ending);
        held.map(|held| held.ends).min()
    }

    /// Takes an event in.
    pub fn handle(&mut self, event: Event<H>, now: Duration) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Ask(ask) => self.ask(&ask, now, &mut effects),
            Event::Renew(ring, epoch) => self.renew(ring, epoch, now),
            Event::Release(ring, epoch) => {
                self.end(ring, epoch, Ending::Released, &mut effects);
            }
            Event::Gone(ring, epoch) => self.gone(ring, epoch, now, &mut effects),
            Event::Time => {}
        }
        self.expire(now, &mut effects);
        effects
    }

    fn ask(&mut self, ask: &Ask<H>, now: Duration, effects: &mut Vec<Effect>) {
        let refuse = |refusal| Effect::Refuse(ask.ring, ask.epoch, refusal);
        let no_memory = |free_bytes| Refusal::NoMemory {
            needed_bytes: ask.bytes,
            free_bytes,
        };
        let lease = ask.lease.clamp(LEASE_MIN, LEASE_MAX);
        let held = Held {
            epoch: ask.epoch,
            bytes: ask.bytes,
            lease,
            ends: now + lease,
            is_ending: false,
        };
        let used_bytes = self.used_bytes();
        let Some(entry) = self.rings.get_mut(&ask.ring) else {
            let free_bytes = self.free_bytes();
            let refusal = if self.rings.len() >= RINGS_MAX {
                Refusal::Full
            } else if ask.bytes > free_bytes {
                no_memory(free_bytes)
            } else {
                let entry = Entry {
                    host: ask.host,
                    current: Some(held),
                    waiting: None,
                };
                self.rings.insert(ask.ring, entry);
                effects.push(Effect::Grant(ask.ring, ask.epoch));
                return;
            };
            effects.push(refuse(refusal));
            return;
        };
        if entry.host != ask.host {
            effects.push(refuse(Refusal::Taken));
            return;
        }
        if let Some(epoch) = entry.newest().filter(|newest| *newest >= ask.epoch) {
            effects.push(refuse(Refusal::OldEpoch { epoch }));
            return;
        }
        let free_bytes = self
            .budget_bytes
            .saturating_sub(used_bytes.saturating_sub(entry.bytes()));
        // The host has given the older epochs up, whether there is room for this one or not.
        if let Some(older) = entry.waiting.take() {
            let refusal = Refusal::Replaced;
            effects.push(Effect::Refuse(ask.ring, older.epoch, refusal));
        }
        if let Some(current) = entry.current.as_mut().filter(|held| !held.is_ending) {
            current.is_ending = true;
            let ending = Ending::Replaced;
            effects.push(Effect::End(ask.ring, current.epoch, ending));
        }
        if ask.bytes > free_bytes {
            effects.push(refuse(no_memory(free_bytes)));
        } else {
            entry.waiting = Some(held);
        }
    }

    fn renew(&mut self, ring: RingId, epoch: u32, now: Duration) {
        let Some(entry) = self.rings.get_mut(&ring) else {
            return;
        };
        for held in [&mut entry.current, &mut entry.waiting] {
            if let Some(held) = held.as_mut().filter(|h| h.epoch == epoch && !h.is_ending) {
                held.ends = now + held.lease;
            }
        }
    }

    fn end(&mut self, ring: RingId, epoch: u32, ending: Ending, effects: &mut Vec<Effect>) {
        let Some(entry) = self.rings.get_mut(&ring) else {
            return;
        };
        if entry.waiting.is_some_and(|held| held.epoch == epoch) {
            entry.waiting = None;
            effects.push(Effect::Refuse(ring, epoch, Refusal::Replaced));
        }
        let current = entry.current.as_mut();
        if let Some(held) = current.filter(|h| h.epoch == epoch && !h.is_ending) {
            held.is_ending = true;
            effects.push(Effect::End(ring, epoch, ending));
        }
    }

    fn gone(&mut self, ring: RingId, epoch: u32, now: Duration, effects: &mut Vec<Effect>) {
        let Some(entry) = self.rings.get_mut(&ring) else {
            return;
        };
        if entry.current.is_none_or(|held| held.epoch != epoch) {
            return;
        }
        entry.current = entry.waiting.take();
        match &mut entry.current {
            Some(held) => {
                // Waiting was not the host's fault.
                held.ends = now + held.lease;
                effects.push(Effect::Grant(ring, held.epoch));
            }
            None => {
                self.rings.remove(&ring);
            }
        }
    }

    fn expire(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let mut over = Vec::new();
        for (ring, entry) in &self.rings {
            let held = [entry.current, entry.waiting].into_iter().flatten();
            let held = held.filter(|held| held.ends <= now && !held.is_ending);
            over.extend(held.map(|held| (*ring, held.epoch)));
        }
        for (ring, epoch) in over {
            self.end(ring, epoch, Ending::Expired, effects);
        }
    }
}

#[cfg(test)]
mod tests;
