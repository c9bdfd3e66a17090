//! Owns what is known of every member: the last word of each, departures, revocations, and digests
//! over all of it. Decides what is newer; does not check signatures and sends nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::changes::Changes;
use super::message::{Fact, Item};
use super::past::Past;
pub(super) use super::record::{Judgement, Record, Standing};
use super::{DEPARTED_MS, GRACE_MS, MEMBERS_MAX, REVOCATIONS_MAX};
use crate::NodeId;
use crate::announcement::{Signed, departure_hash, item_hash};

/// Parts of the table with a digest each.
pub(super) const PARTS: usize = 256;

/// How much older news may be than the nodes on its way have counted, in milliseconds.
const LAG_MS: u64 = 5_000;

/// What a piece of news is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Subject {
    /// A member's last word or its departure.
    Node(NodeId),
    /// A suspicion of a member.
    Suspicion(NodeId),
    /// A revocation, by its hash.
    Revocation(u64),
}

#[derive(Debug)]
pub(super) struct Table {
    members: BTreeMap<NodeId, Record>,
    revocations: BTreeMap<u64, Arc<[u8]>>,
    /// For look-ups alone; never iterated.
    by_hash: HashMap<u64, Subject>,
    digests: Vec<u64>,
    past: Past,
    alive: usize,
    /// Counts how often the set of those alive has changed.
    alive_changes: u64,
    changes: Changes,
    /// Until then nothing runs out: this node was away, and others are about to tell it the latest.
    grace_until_ms: u64,
    /// Deaths are opinions here: this node pulls, and follows whom it asks.
    trusting: bool,
}

impl Table {
    /// An empty table; `source` names its sequence of changes.
    pub(super) fn new(source: u64) -> Self {
        Self {
            members: BTreeMap::new(),
            revocations: BTreeMap::new(),
            by_hash: HashMap::new(),
            digests: vec![0; PARTS],
            past: Past::default(),
            alive: 0,
            alive_changes: 0,
            changes: Changes::new(source),
            grace_until_ms: 0,
            trusting: false,
        }
    }

    pub(super) fn get(&self, node: NodeId) -> Option<&Record> {
        self.members.get(&node)
    }

    pub(super) fn alive(&self, node: NodeId) -> Option<&Record> {
        self.get(node).filter(|record| record.is_alive())
    }

    pub(super) fn members(&self) -> impl Iterator<Item = (NodeId, &Record)> {
        self.members.iter().map(|(node, record)| (*node, record))
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    pub(super) fn alive_len(&self) -> usize {
        self.alive
    }

    /// Differs whenever the set of those alive does.
    pub(super) fn alive_changes(&self) -> u64 {
        self.alive_changes
    }

    pub(super) fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Whether news with this hash is here, or was and is outdated.
    pub(super) fn knows(&self, hash: u64) -> bool {
        self.by_hash.contains_key(&hash) || self.past.contains(hash)
    }

    pub(super) fn subject(&self, hash: u64) -> Option<Subject> {
        self.by_hash.get(&hash).copied()
    }

    /// Digest of everything.
    pub(super) fn root(&self) -> u64 {
        self.digests.iter().fold(0, |root, digest| root ^ digest)
    }

    /// Digests of `parts` equal parts, a power of two of at most [`PARTS`].
    pub(super) fn part_digests(&self, parts: usize) -> Vec<u32> {
        let fold = |digest: u64| (digest ^ (digest >> 32)) as u32;
        let width = PARTS / parts.clamp(1, PARTS);
        let chunks = self.digests.chunks(width);
        chunks
            .map(|chunk| fold(chunk.iter().fold(0, |sum, digest| sum ^ digest)))
            .collect()
    }

    /// Everything in the given parts of `parts`: hash, subject, and when it came here.
    pub(super) fn entries(&self, parts: usize, wanted: &[u8]) -> Vec<(u64, Subject, u64)> {
        let width = PARTS / parts.clamp(1, PARTS);
        let mut entries = Vec::new();
        for &part in wanted {
            let first = usize::from(part) * width;
            let (Ok(low), Ok(high)) = (u8::try_from(first), u8::try_from(first + width - 1)) else {
                continue;
            };
            let (mut from, mut to) = ([0; 32], [u8::MAX; 32]);
            (from[0], to[0]) = (low, high);
            let range = NodeId::from_bytes(from)..=NodeId::from_bytes(to);
            for (node, record) in self.members.range(range) {
                if record.hash != 0 {
                    entries.push((record.hash, Subject::Node(*node), record.heard_at_ms));
                }
            }
            for &hash in self.revocations.keys() {
                if (low..=high).contains(&revocation_part(hash)) {
                    entries.push((hash, Subject::Revocation(hash), 0));
                }
            }
        }
        entries
    }

    /// The news about `subject`, with its age.
    pub(super) fn item(&self, subject: Subject, now_ms: u64) -> Option<Item> {
        let (fact, age_ms) = match subject {
            Subject::Node(node) => {
                let record = self.get(node).filter(|record| record.hash != 0)?;
                let died = Fact::Died {
                    node,
                    incarnation: record.incarnation,
                };
                let fact = match (record.standing, &record.signed) {
                    (Standing::Dead, _) | (_, None) => died,
                    (_, Some(signed)) => Fact::Announced(signed.clone()),
                };
                (fact, record.age_ms(now_ms))
            }
            Subject::Revocation(hash) => (Fact::Revoked(self.revocations.get(&hash)?.clone()), 0),
            Subject::Suspicion(_) => return None,
        };
        Some(Item {
            fact,
            age_ms,
            urgent: false,
        })
    }

    /// How an announcement compares with what is known; nothing changes but its author's allowance.
    pub(super) fn judge(&mut self, signed: &Signed, age_ms: u64, now_ms: u64) -> Judgement {
        let said = signed.announcement();
        let ran_out = age_ms >= said.ttl_ms && !said.leaving;
        if ran_out || age_ms >= DEPARTED_MS {
            return Judgement::Refused;
        }
        // The departed make room for those who live.
        let full = self.alive >= MEMBERS_MAX;
        let Some(record) = self.members.get_mut(&said.node) else {
            return if full {
                Judgement::Refused
            } else {
                Judgement::New
            };
        };
        if record.standing == Standing::Expired && age_ms + LAG_MS >= said.ttl_ms {
            return Judgement::Refused;
        }
        let new = (said.incarnation, said.leaving, said.sequence);
        let judgement = record.judge(new, self.trusting);
        let spoken = record.is_alive() && new.0 == record.incarnation && !said.leaving;
        if judgement == Judgement::New && spoken && !record.take_allowance(now_ms) {
            return Judgement::Refused;
        }
        judgement
    }

    /// The same for a death.
    pub(super) fn judge_death(&self, node: NodeId, incarnation: u64, age_ms: u64) -> Judgement {
        match self.members.get(&node) {
            _ if age_ms >= DEPARTED_MS => Judgement::Refused,
            Some(record) => record.judge((incarnation, true, 0), self.trusting),
            None if self.members.len() >= MEMBERS_MAX => Judgement::Refused,
            None => Judgement::New,
        }
    }

    /// Takes an announcement that was judged new and is genuine. Returns whether its route changed.
    pub(super) fn announce(&mut self, signed: Arc<Signed>, age_ms: u64, now_ms: u64) -> bool {
        let said = signed.announcement();
        let (node, incarnation, sequence) = (said.node, said.incarnation, said.sequence);
        let standing = if said.leaving {
            Standing::Left
        } else {
            Standing::Alive
        };
        let hash = signed.hash();
        self.replace(node, now_ms, age_ms, |record| {
            record.incarnation = incarnation;
            record.sequence = sequence;
            record.standing = standing;
            record.signed = Some(signed);
            record.hash = hash;
        })
    }

    /// Takes a death that was judged new.
    pub(super) fn bury(&mut self, node: NodeId, incarnation: u64, age_ms: u64, now_ms: u64) {
        self.replace(node, now_ms, age_ms, |record| {
            record.incarnation = incarnation;
            record.standing = Standing::Dead;
            record.hash = departure_hash(node, incarnation);
        });
    }

    /// Forgets a member that was expelled. No departure is told: the revocation says it.
    pub(super) fn expel(&mut self, node: NodeId) {
        self.remove(node);
    }

    /// This node alone holds the member for gone.
    pub(super) fn expire(&mut self, node: NodeId, now_ms: u64) {
        let age_ms = self.get(node).map_or(0, |record| record.age_ms(now_ms));
        self.replace(node, now_ms, age_ms, |record| {
            record.standing = Standing::Expired;
            record.hash = 0;
        });
    }

    /// Forgets a member, as if it had never been heard of.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.remove(node);
    }

    fn remove(&mut self, node: NodeId) {
        let Some(record) = self.members.remove(&node) else {
            return;
        };
        self.alive -= usize::from(record.is_alive());
        self.alive_changes += u64::from(record.is_alive());
        self.digests[usize::from(node.as_bytes()[0])] ^= record.hash;
        if record.hash != 0 {
            self.by_hash.remove(&record.hash);
            self.past.insert(record.hash);
        }
        self.changes.remove(record.change, record.route_hash());
    }

    fn replace(
        &mut self,
        node: NodeId,
        now_ms: u64,
        age_ms: u64,
        set: impl FnOnce(&mut Record),
    ) -> bool {
        if !self.members.contains_key(&node) {
            self.make_room(now_ms);
        }
        let record = self.members.entry(node);
        let record = record.or_insert_with(|| Record::empty(now_ms));
        let (old_hash, old_route) = (record.hash, record.route_hash());
        let was_alive = record.is_alive();
        set(record);
        let age = i64::try_from(age_ms).unwrap_or(i64::MAX);
        record.said_at_ms = i64::try_from(now_ms)
            .unwrap_or(i64::MAX)
            .saturating_sub(age);
        record.heard_at_ms = now_ms;
        if record.is_alive() && !was_alive {
            self.alive += 1;
            self.alive_changes += 1;
        } else if was_alive && !record.is_alive() {
            self.alive -= 1;
            self.alive_changes += 1;
        }
        self.digests[usize::from(node.as_bytes()[0])] ^= old_hash ^ record.hash;
        if old_hash != 0 {
            self.by_hash.remove(&old_hash);
            self.past.insert(old_hash);
        }
        if record.hash != 0 {
            self.by_hash.insert(record.hash, Subject::Node(node));
        }
        let new_route = record.route_hash();
        let moved = old_route != new_route;
        if moved || record.change == 0 {
            let subject = Subject::Node(node);
            record.change = self
                .changes
                .touch(record.change, subject, old_route ^ new_route);
        }
        moved
    }

    /// Forgets the one who departed longest ago, if the table is full.
    fn make_room(&mut self, now_ms: u64) {
        if self.members.len() < MEMBERS_MAX {
            return;
        }
        let departed = self.members.iter().filter(|(_, r)| !r.is_alive());
        let oldest = departed.max_by_key(|(_, record)| record.age_ms(now_ms));
        if let Some(node) = oldest.map(|(node, _)| *node) {
            self.remove(node);
        }
    }

    /// Whether a revocation with this hash is known, or would be one too many.
    pub(super) fn judge_revocation(&self, hash: u64) -> Judgement {
        if self.revocations.contains_key(&hash) {
            Judgement::Known
        } else if self.revocations.len() >= REVOCATIONS_MAX {
            Judgement::Refused
        } else {
            Judgement::New
        }
    }

    /// Remembers news that is worth nothing, so that nobody asks for it again.
    pub(super) fn pass_over(&mut self, hash: u64) {
        self.past.insert(hash);
    }

    /// Takes a revocation that was judged new and accepted.
    pub(super) fn revoke(&mut self, blob: Arc<[u8]>) {
        let hash = item_hash(b'R', &blob, 0, 0);
        if self.revocations.insert(hash, blob).is_none() {
            self.digests[usize::from(revocation_part(hash))] ^= hash;
            self.by_hash.insert(hash, Subject::Revocation(hash));
            self.changes.touch(0, Subject::Revocation(hash), hash);
        }
    }

    /// Says whose announcements ran out, and forgets those who departed long ago.
    pub(super) fn sweep(&mut self, me: NodeId, now_ms: u64) -> Vec<NodeId> {
        let mut expired = Vec::new();
        let mut forgotten = Vec::new();
        let grace = self.grace_until_ms > now_ms;
        for (&node, record) in &self.members {
            let age_ms = record.age_ms(now_ms);
            if record.is_alive() {
                if !grace && node != me && age_ms >= record.ttl_ms() {
                    expired.push(node);
                }
            } else if age_ms >= DEPARTED_MS {
                forgotten.push(node);
            }
        }
        for node in forgotten {
            self.remove(node);
        }
        expired
    }

    /// Whether deaths are opinions of whoever tells them, which the next one may correct.
    pub(super) fn set_trusting(&mut self, trusting: bool) {
        if self.trusting && !trusting {
            // Neighbours will say which of the opinions are true.
            let dead = self.members.iter();
            let dead =
                dead.filter(|(_, r)| matches!(r.standing, Standing::Dead | Standing::Expired));
            for node in dead.map(|(node, _)| *node).collect::<Vec<_>>() {
                self.remove(node);
            }
        }
        self.trusting = trusting;
    }

    /// This node was away: it slept, or announced nothing and pulled. It holds nobody for silent
    /// before others had time to say what they know. Ages stay true, or it would bring the dead back.
    pub(super) fn be_patient(&mut self, now_ms: u64) {
        self.grace_until_ms = now_ms + GRACE_MS;
    }
}

fn revocation_part(hash: u64) -> u8 {
    hash.to_le_bytes()[0]
}
