//! Owns what this node says of itself and when: urgent changes at once, within a budget; the rest
//! at intervals that grow with the mesh. Also its incarnations.

use std::collections::BTreeMap;

use super::choice::prefix;
use super::event::Effect;
use super::message::{Fact, Item, Message};
use super::state::{Mode, State};
use super::table::{Judgement, Subject};
use super::{ANNOUNCE_MS_MIN, REINCARNATE_MS, URGENT_BURST, URGENT_REFILL_MS, timing};
use crate::Role;
use crate::announcement::{
    Announcement, COUNTER_MAX, ModelRate, NodeInfo, RATES_MAX, ROUND_TRIPS_MAX, RoundTrip, Signed,
};

/// Shortest time between two objections to suspicions.
const OBJECT_MS: u64 = 2_000;

/// The latest life of this node whose end is believed without its own signature: no clock shows
/// more, and after it there are as many lives as before.
const CLAIMED_INCARNATION_MAX: u64 = COUNTER_MAX / 2;

#[derive(Debug)]
pub(super) struct Publisher {
    info: NodeInfo,
    incarnation: u64,
    sequence: u64,
    /// Something changed since the last announcement; it is urgent.
    changed: bool,
    urgent: bool,
    published_at_ms: u64,
    /// How long the last announcement holds.
    ttl_ms: u64,
    /// Urgent announcements that may be made now.
    budget: u32,
    refilled_at_ms: u64,
    objected_at_ms: Option<u64>,
    reincarnate_at_ms: u64,
    reincarnate_pause_ms: u64,
    /// The life that somebody declared ended, to be outbid.
    ended: Option<u64>,
}

impl Publisher {
    pub(super) fn new(unix_ms: u64) -> Self {
        Self {
            info: NodeInfo::default(),
            incarnation: unix_ms.clamp(1, COUNTER_MAX - 1),
            sequence: 0,
            changed: false,
            urgent: false,
            published_at_ms: 0,
            ttl_ms: 0,
            budget: URGENT_BURST,
            refilled_at_ms: 0,
            objected_at_ms: None,
            reincarnate_at_ms: 0,
            reincarnate_pause_ms: REINCARNATE_MS.0,
            ended: None,
        }
    }

    pub(super) fn rates(&self) -> &[ModelRate] {
        &self.info.rates
    }

    /// What those who pull from this node ask for has changed; it is told with the next load.
    pub(super) fn demand_changed(&mut self) {
        self.changed = true;
    }

    /// When something urgent may be told, if there is something.
    pub(super) fn urgent_at_ms(&self) -> Option<u64> {
        (self.urgent && self.budget > 0).then_some(self.published_at_ms + ANNOUNCE_MS_MIN)
    }

    fn refill(&mut self, now_ms: u64) {
        let refills = now_ms.saturating_sub(self.refilled_at_ms) / URGENT_REFILL_MS;
        if refills > 0 {
            let more = u32::try_from(refills).unwrap_or(URGENT_BURST);
            self.budget = self.budget.saturating_add(more).min(URGENT_BURST);
            self.refilled_at_ms = now_ms;
        }
    }
}

impl State {
    pub(super) fn set_info(&mut self, mut info: NodeInfo) {
        info.trim();
        let announces = self.config.role == Role::Serve && info.state.announces();
        self.publisher.urgent |= self.publisher.info.differs_urgently(&info);
        self.publisher.changed |= self.publisher.info != info;
        match (self.mode, announces) {
            (Mode::Pull, true) => {
                self.publisher.info = info;
                self.publisher.urgent = true;
                self.enter();
            }
            (Mode::Gossip, false) => {
                self.say_goodbye();
                self.publisher.info = info;
                self.retire();
            }
            _ => self.publisher.info = info,
        }
        self.publish_if_due();
    }

    /// Begins to announce and to pass on news.
    fn enter(&mut self) {
        self.mode = Mode::Gossip;
        self.puller_stop();
        let now_ms = self.now_ms();
        // Pulled tables do not tell of every renewal.
        self.table.be_patient(now_ms);
        self.table.set_trusting(false);
        self.links.choose_soon(now_ms);
        // Also when this node has found others: after a power cut all start at once, and those that
        // met first would never look for the rest.
        for node in self.bootstrap.clone() {
            if self.table.alive(node).is_none() {
                self.seeker.add(node, now_ms);
            }
        }
        let serving = self.peers.iter().filter(|(_, p)| p.role == Role::Serve);
        for node in serving.map(|(node, _)| *node).collect::<Vec<_>>() {
            self.greet(node);
        }
    }

    /// Stops announcing; from now on this node pulls. Its next life is a new one.
    fn retire(&mut self) {
        self.flush_links();
        self.unlink_all();
        self.mode = Mode::Pull;
        self.table.set_trusting(true);
        self.publisher.incarnation = (self.publisher.incarnation + 1).min(COUNTER_MAX);
        self.publisher.sequence = 0;
        self.pull_soon();
    }

    pub(super) fn leave(&mut self) {
        if self.mode == Mode::Gossip {
            self.say_goodbye();
            self.flush_links();
        }
        self.mode = Mode::Off;
        self.mark_changed();
        self.effect(Effect::Left);
    }

    /// The last word of this life goes to every neighbour, not just along the tree.
    fn say_goodbye(&mut self) {
        self.links
            .iter_mut()
            .for_each(|(_, link)| link.eager = true);
        self.publish(true);
    }

    pub(super) fn publish_if_urgent(&mut self) {
        let urgent_at_ms = self.publisher.urgent_at_ms();
        if urgent_at_ms.is_some_and(|at_ms| at_ms <= self.now_ms()) {
            self.publish_if_due();
        }
    }

    pub(super) fn publish_if_due(&mut self) {
        if self.mode != Mode::Gossip {
            return;
        }
        let now_ms = self.now_ms();
        self.reincarnate_if_due();
        self.publisher.refill(now_ms);
        let publisher = &self.publisher;
        let since_ms = now_ms - publisher.published_at_ms;
        let first = publisher.sequence == 0;
        let members = self.table.alive_len();
        let urgent = publisher.urgent && publisher.budget > 0 && since_ms >= ANNOUNCE_MS_MIN;
        let routine = publisher.changed && since_ms >= timing::routine_ms(members);
        // The mesh may have grown since, and with it the time between renewals.
        let refresh_ms = timing::refresh_ms(members).min(publisher.ttl_ms / timing::RENEWALS);
        let refresh = since_ms >= refresh_ms;
        if first || urgent || routine || refresh {
            self.publisher.budget -= u32::from(urgent);
            self.publish(false);
        }
    }

    fn publish(&mut self, leaving: bool) {
        let now_ms = self.now_ms();
        let urgent = self.publisher.urgent || leaving || self.publisher.sequence == 0;
        self.publisher.sequence = (self.publisher.sequence + 1).min(COUNTER_MAX);
        self.publisher.published_at_ms = now_ms;
        (self.publisher.changed, self.publisher.urgent) = (false, false);
        let mut announcement = self.announcement(leaving);
        self.publisher.ttl_ms = announcement.ttl_ms;
        let authority = self.authority.as_ref();
        let signed = Signed::new(announcement.clone(), authority).or_else(|_| {
            // Too long with everything; what is served and how it is reached always fits.
            announcement.info.local.clear();
            announcement.info.wanted.clear();
            announcement.info.devices.truncate(1);
            Signed::new(announcement, authority)
        });
        let Ok(signed) = signed else {
            return;
        };
        let hash = signed.hash();
        self.table.announce(signed, 0, now_ms);
        self.mark_changed();
        self.spread(Subject::Node(self.config.me), hash, urgent, None);
    }

    fn announcement(&self, leaving: bool) -> Announcement {
        let mut info = self.publisher.info.clone();
        info.rates = self.demand();
        Announcement {
            mesh: self.config.mesh,
            node: self.config.me,
            incarnation: self.publisher.incarnation,
            sequence: self.publisher.sequence,
            ttl_ms: timing::ttl_ms(self.table.alive_len()),
            leaving,
            role: self.config.role,
            round_trips: self.round_trips(),
            info,
        }
    }

    /// The nearest neighbours.
    fn round_trips(&self) -> Vec<RoundTrip> {
        let measured = |node| {
            let us = self.peers.get(&node)?.round_trip_us?;
            Some(RoundTrip {
                peer: prefix(node),
                us,
            })
        };
        let mut trips: Vec<RoundTrip> = self.links.nodes().filter_map(measured).collect();
        trips.sort_by_key(|trip| (trip.us, trip.peer));
        trips.truncate(ROUND_TRIPS_MAX);
        trips
    }

    /// Demand at this node and at those that pull from it, the most wanted models first.
    fn demand(&self) -> Vec<ModelRate> {
        let mut sums: BTreeMap<&str, f32> = BTreeMap::new();
        let pulling = self.peers.values().filter(|peer| self.pulls(peer));
        let pulled = pulling.flat_map(|peer| &peer.rates);
        for rate in self.publisher.info.rates.iter().chain(pulled) {
            *sums.entry(rate.model.as_str()).or_default() += rate.per_minute;
        }
        let finite = sums
            .into_iter()
            .filter(|(_, per_minute)| per_minute.is_finite());
        let mut rates: Vec<ModelRate> = finite
            .map(|(model, per_minute)| ModelRate {
                model: model.to_owned(),
                per_minute,
            })
            .collect();
        rates.sort_by(|a, b| b.per_minute.total_cmp(&a.per_minute));
        rates.truncate(RATES_MAX);
        rates
    }

    /// Somebody passes on this node's own announcement. One from an earlier life may be later
    /// than what this life counts: then it is outbid.
    pub(super) fn hear_of_self(&mut self, from: crate::NodeId, signed: &Signed) -> Judgement {
        let said = signed.announcement();
        let theirs = (said.incarnation, said.leaving, said.sequence);
        let mine = (self.publisher.incarnation, false, self.publisher.sequence);
        if theirs == mine {
            return Judgement::Known;
        }
        let contradicted = match self.mode {
            Mode::Gossip => theirs > mine,
            // An earlier life ended without a goodbye, and nobody notices, since this node answers.
            Mode::Pull => !said.leaving,
            Mode::Off => false,
        };
        if !contradicted {
            return Judgement::Stale;
        }
        if !signed.is_genuine(self.config.mesh, self.authority.as_ref()) {
            self.disconnect(from, super::Offence::Forgery);
            return Judgement::Refused;
        }
        match self.mode {
            Mode::Gossip => self.reincarnate(said.incarnation),
            Mode::Pull | Mode::Off => self.end_former_life(from, said.incarnation, said.sequence),
        }
        Judgement::New
    }

    /// Tells whoever believes in a former life of this node that it is over.
    fn end_former_life(&mut self, believer: crate::NodeId, incarnation: u64, sequence: u64) {
        let goodbye = Announcement {
            incarnation,
            sequence: (sequence + 1).min(COUNTER_MAX),
            ..self.announcement(true)
        };
        let next = (incarnation + 1).min(COUNTER_MAX);
        self.publisher.incarnation = self.publisher.incarnation.max(next);
        if let Ok(signed) = Signed::new(goodbye, self.authority.as_ref()) {
            let items = vec![Item {
                fact: Fact::Announced(signed),
                age_ms: 0,
                urgent: true,
            }];
            self.send(believer, Message::News { items });
        }
    }

    /// Somebody declared this life ended: the next one begins, at once unless that happens often.
    ///
    /// A former life may have begun by a clock that was far ahead, but lives are not to be used up by
    /// a claim that nobody else believes.
    pub(super) fn reincarnate(&mut self, ended: u64) {
        let mine = self.publisher.incarnation;
        let believable = ended <= mine.max(CLAIMED_INCARNATION_MAX) && ended < COUNTER_MAX;
        if self.mode != Mode::Gossip || ended < mine || !believable {
            return;
        }
        self.publisher.ended = self.publisher.ended.max(Some(ended));
        self.reincarnate_if_due();
    }

    fn reincarnate_if_due(&mut self) {
        let now_ms = self.now_ms();
        let publisher = &mut self.publisher;
        let Some(ended) = publisher
            .ended
            .filter(|_| publisher.reincarnate_at_ms <= now_ms)
        else {
            return;
        };
        publisher.ended = None;
        // A node that had peace for long starts again with the short pause.
        let peace = now_ms - publisher.reincarnate_at_ms > 2 * REINCARNATE_MS.1;
        let doubled = (publisher.reincarnate_pause_ms * 2).min(REINCARNATE_MS.1);
        publisher.reincarnate_pause_ms = if peace { REINCARNATE_MS.0 } else { doubled };
        publisher.reincarnate_at_ms = now_ms + publisher.reincarnate_pause_ms;
        publisher.incarnation = ended.max(publisher.incarnation) + 1;
        publisher.sequence = 0;
        self.publish(false);
    }

    /// Somebody suspects this node: a new announcement says that it lives.
    pub(super) fn object(&mut self, incarnation: u64, sequence: u64) {
        let now_ms = self.now_ms();
        let publisher = &mut self.publisher;
        let outdated = (incarnation, sequence) < (publisher.incarnation, publisher.sequence);
        let lately = publisher
            .objected_at_ms
            .is_some_and(|at| at + OBJECT_MS > now_ms);
        if self.mode != Mode::Gossip || lately {
            return;
        }
        if outdated && now_ms - publisher.published_at_ms < OBJECT_MS {
            // The announcement that answers this is on its way.
            return;
        }
        publisher.objected_at_ms = Some(now_ms);
        publisher.urgent = true;
        self.publish(false);
    }
}
