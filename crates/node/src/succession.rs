//! Who hosts a model that runs on several machines when its host is lost. Pure: functions of what the
//! mesh says, and of how long that has been so.
//!
//! Every host claims its models in its announcement, with a **term** that counts their hosts. When the
//! claiming node is gone, those that have the file take over, in an order that everybody computes alike:
//! the first at once, each other one a little later if nobody has claimed the model by then. Of two
//! living claims one gives way: what answers stays, and then the higher term does. So an old host that
//! comes back finds a newer term and lets the model go.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use mesh::NodeId;
use mesh::Role;
use mesh::announcement::{Model, NodeInfo, SplitModel, SplitStage};
use mesh::proto::{Liveness, View};

use crate::models::{Hosting, is_called};

/// A host that somebody hears nothing from is lost after so long, ms. Within that time the mesh has
/// looked for it by all its ways and heard its objection, if it is alive.
pub(crate) const SILENT_MS: u64 = 3_500;

/// How much longer each heir waits than the one before it, ms: longer than a claim takes to get around.
const TURN_MS: u64 = 3_000;

/// Turns that are told apart; all later heirs act together, since none of the earlier ones did.
const TURNS_MAX: usize = 8;

/// A joiner waits so long for the table of the mesh, ms, before it claims anything.
const SETTLE_MS: u64 = 1_500;

/// It waits no longer once it knows others, and for so long, ms, of no more of them: tables come as a whole.
const QUIET_MS: u64 = 400;

/// A model that was dropped by hand is not taken over for so long, ms.
const DROPPED_MS: u64 = 10 * 60_000;

/// Split models that are remembered. A mesh has a few; the names come from others.
const KNOWN_MAX: usize = 64;

/// A node of the mesh, as far as this matters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Member<'a> {
    /// Who.
    pub(crate) node: NodeId,
    /// Whether it lives.
    pub(crate) liveness: Liveness,
    /// Whether it may run models.
    pub(crate) may_serve: bool,
    /// What it says of itself.
    pub(crate) info: &'a NodeInfo,
}

/// A node that hosts a split model, or did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    /// Who.
    pub(crate) node: NodeId,
    /// Whether it lives.
    pub(crate) liveness: Liveness,
    /// What it says.
    pub(crate) split: SplitModel,
}

/// What an ingress may hope for that has lost the host of a split model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prospect {
    /// It does not run on several machines, as far as anybody says.
    Whole,
    /// Somebody hosts it, or is about to.
    Coming,
    /// Somebody would host it and has no machines or memory for it.
    Stuck,
    /// Nobody can.
    Nobody,
}

/// What is known at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Scene<'a> {
    /// When, ms.
    pub(crate) now_ms: u64,
    /// This node.
    pub(crate) me: NodeId,
    /// All members, this one and the departed among them.
    pub(crate) members: &'a [Member<'a>],
    /// Split models of this node.
    pub(crate) own: Vec<Hosting>,
    /// Fingerprints of models on this node's disk.
    pub(crate) local: Vec<String>,
    /// Whether this node may take models over.
    pub(crate) willing: bool,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Host the model of this entry, as the `term`-th host. `follows`: it ran until its host was lost, so streams may
    /// wait for it.
    Begin { id: u64, term: u32, follows: bool },
    /// Leave the model of this entry to another.
    Yield { id: u64, to: NodeId },
    /// Take over a model that has lost its host.
    TakeOver { split: SplitModel },
}

/// Remembers since when things are as they are.
#[derive(Debug, Default)]
pub(crate) struct Successor {
    first_ms: Option<u64>,
    /// Members that were known at the last look, and since when there are so many.
    members: usize,
    members_ms: u64,
    /// The highest term of each model that was seen alive, by fingerprint.
    seen: BTreeMap<String, u32>,
    /// Since when a claiming node is silent.
    silent_ms: BTreeMap<NodeId, u64>,
    /// Since when a model has no host.
    lost_ms: BTreeMap<String, u64>,
    dropped_ms: BTreeMap<String, u64>,
}

/// The members of a mesh.
pub(crate) fn members(view: &View) -> Vec<Member<'_>> {
    let members = view.members.iter().map(|member| Member {
        node: member.node,
        liveness: member.liveness,
        may_serve: member.role() == Role::Serve,
        info: &member.announcement().info,
    });
    members.collect()
}

impl Successor {
    /// The owner of this node dropped a model.
    pub(crate) fn dropped(&mut self, model: &str, now_ms: u64) {
        if self.dropped_ms.len() < KNOWN_MAX {
            self.dropped_ms.insert(model.to_owned(), now_ms);
        }
    }

    /// What to do now.
    pub(crate) fn decide(&mut self, scene: &Scene<'_>) -> Vec<Step> {
        let now_ms = scene.now_ms;
        let first_ms = *self.first_ms.get_or_insert(now_ms);
        if self.members != scene.members.len() {
            (self.members, self.members_ms) = (scene.members.len(), now_ms);
        }
        let knows_others = scene.members.iter().any(|member| member.node != scene.me);
        let is_settled =
            now_ms >= first_ms + SETTLE_MS || knows_others && now_ms >= self.members_ms + QUIET_MS;
        self.dropped_ms.retain(|_, at| now_ms < *at + DROPPED_MS);
        let claims = self.observe(scene);
        let mut steps = Vec::new();
        for own in &scene.own {
            let others = claims.get(&own.facts.fingerprint);
            let others = others.map(Vec::as_slice).unwrap_or_default();
            let living = others.iter().filter(|claim| self.lives(claim, now_ms));
            let strongest = living.max_by_key(|claim| strength(claim.node, &claim.split));
            let step = match (own.term, strongest) {
                (Some(term), Some(other)) => self.compare(own, term, other, scene),
                // Whoever runs it stays.
                (None, Some(other)) => Some(Step::Yield {
                    id: own.id,
                    to: other.node,
                }),
                (Some(_), None) => served_elsewhere(own, scene),
                (None, None) => {
                    let is_due =
                        is_settled && self.is_my_turn(&own.facts.fingerprint, others, scene);
                    is_due.then(|| Step::Begin {
                        id: own.id,
                        term: self.next_term(&own.facts.fingerprint),
                        // One that waited for machines or memory ran nothing that streams could wait for.
                        follows: (self.lost(&own.facts.fingerprint, others))
                            .is_some_and(|split| split.stage != SplitStage::Waiting),
                    })
                }
            };
            steps.extend(step);
        }
        if scene.willing {
            steps.extend(self.take_over(&claims, scene));
        }
        steps
    }

    /// Notes who claims what. Gives the claims of others, by fingerprint.
    fn observe(&mut self, scene: &Scene<'_>) -> BTreeMap<String, Vec<Claim>> {
        let now_ms = scene.now_ms;
        let mut claims: BTreeMap<String, Vec<Claim>> = BTreeMap::new();
        let mut silent = BTreeMap::new();
        for member in scene.members.iter().filter(|m| m.node != scene.me) {
            if member.liveness == Liveness::Suspect {
                let since = self.silent_ms.get(&member.node).copied();
                silent.insert(member.node, since.unwrap_or(now_ms));
            }
            for split in &member.info.splits {
                let fingerprint = split.model.fingerprint.clone();
                let known = claims.len() < KNOWN_MAX || claims.contains_key(&fingerprint);
                if known && !fingerprint.is_empty() {
                    claims
                        .entry(fingerprint)
                        .or_default()
                        .push(claim(member, split));
                }
            }
        }
        self.silent_ms = silent;
        let own = scene
            .own
            .iter()
            .filter_map(|own| Some((&own.facts.fingerprint, own.term?)));
        for (fingerprint, term) in own {
            note(&mut self.seen, fingerprint, term);
        }
        for (fingerprint, claims) in &claims {
            for claim in claims.iter().filter(|claim| claim.liveness.is_alive()) {
                note(&mut self.seen, fingerprint, claim.split.term);
            }
            let has_host = claims.iter().any(|claim| self.lives(claim, now_ms))
                || is_served(scene.members, fingerprint);
            if has_host {
                self.lost_ms.remove(fingerprint);
            } else {
                self.lost_ms.entry(fingerprint.clone()).or_insert(now_ms);
            }
        }
        self.lost_ms
            .retain(|fingerprint, _| claims.contains_key(fingerprint));
        claims
    }

    /// Whether a claim stands.
    fn lives(&self, claim: &Claim, now_ms: u64) -> bool {
        match claim.liveness {
            Liveness::Alive => true,
            Liveness::Suspect => {
                (self.silent_ms.get(&claim.node)).is_none_or(|since| now_ms < since + SILENT_MS)
            }
            Liveness::Dead | Liveness::Left => false,
        }
    }

    fn next_term(&self, fingerprint: &str) -> u32 {
        let seen = self.seen.get(fingerprint).copied().unwrap_or_default();
        seen.saturating_add(1)
    }

    /// Two hosts at once: one gives way.
    fn compare(&self, own: &Hosting, term: u32, other: &Claim, scene: &Scene<'_>) -> Option<Step> {
        let me = scene.me;
        let mine = SplitModel {
            term,
            stage: own.stage,
            ..SplitModel::default()
        };
        if strength(other.node, &other.split) > strength(me, &mine) {
            // A word that is about to be contradicted is no reason to end streams.
            let is_sure = other.liveness == Liveness::Alive;
            return is_sure.then_some(Step::Yield {
                id: own.id,
                to: other.node,
            });
        }
        // The other one claimed a newer term in the meantime, and shall see that this node stays.
        (other.split.term >= term).then(|| Step::Begin {
            id: own.id,
            term: self.next_term(&own.facts.fingerprint),
            follows: false,
        })
    }

    /// Whether this node is the next one to host a model that nobody hosts.
    fn is_my_turn(&self, fingerprint: &str, others: &[Claim], scene: &Scene<'_>) -> bool {
        let Some(lost_ms) = self.lost_ms.get(fingerprint) else {
            // It had no host before.
            return true;
        };
        let host_bytes = others.iter().map(|claim| claim.split.host_bytes).max();
        let order = heirs(scene.members, fingerprint, host_bytes.unwrap_or_default());
        let place = order.iter().position(|node| *node == scene.me);
        let place = place.unwrap_or(order.len()).min(TURNS_MAX) as u64;
        scene.now_ms >= lost_ms + place * TURN_MS
    }

    /// The newest claim of a model that has lost its host. None of one that was withdrawn by a later host, or before this
    /// node came: that is not wanted any more.
    fn lost<'a>(&self, fingerprint: &str, claims: &'a [Claim]) -> Option<&'a SplitModel> {
        let newest = claims.iter().max_by_key(|claim| claim.split.term)?;
        let seen = self.seen.get(fingerprint)?;
        let is_lost = newest.split.term >= *seen && self.lost_ms.contains_key(fingerprint);
        is_lost.then_some(&newest.split)
    }

    /// A model without a host that this node should take over.
    fn take_over(&self, claims: &BTreeMap<String, Vec<Claim>>, scene: &Scene<'_>) -> Option<Step> {
        claims.iter().find_map(|(fingerprint, claims)| {
            let has_entry = (scene.own.iter()).any(|own| own.facts.fingerprint == *fingerprint);
            let split = self.lost(fingerprint, claims)?;
            let is_wanted = split.stage != SplitStage::Waiting
                && !self.dropped_ms.contains_key(&split.model.name);
            let could = !has_entry && is_wanted && scene.local.contains(fingerprint);
            let due = could && self.is_my_turn(fingerprint, claims, scene);
            due.then(|| Step::TakeOver {
                split: split.clone(),
            })
        })
    }
}

/// A model that was taken over and never came up is let go when a machine has all of it.
fn served_elsewhere(own: &Hosting, scene: &Scene<'_>) -> Option<Step> {
    let is_idle = !own.asked && own.stage == SplitStage::Waiting;
    let server = || {
        let members = scene.members.iter();
        let mut others = members.filter(|m| m.node != scene.me && m.liveness.is_alive());
        others.find(|member| serves(member, &own.facts.fingerprint))
    };
    let server = is_idle.then(server).flatten()?;
    Some(Step::Yield {
        id: own.id,
        to: server.node,
    })
}

fn note(seen: &mut BTreeMap<String, u32>, fingerprint: &str, term: u32) {
    if seen.len() < KNOWN_MAX || seen.contains_key(fingerprint) {
        let known = seen.entry(fingerprint.to_owned()).or_default();
        *known = term.max(*known);
    }
}

fn claim(member: &Member<'_>, split: &SplitModel) -> Claim {
    Claim {
        node: member.node,
        liveness: member.liveness,
        split: split.clone(),
    }
}

/// Which of two claims stays: the larger.
fn strength(node: NodeId, split: &SplitModel) -> (SplitStage, u32, NodeId) {
    (split.stage, split.term, node)
}

/// Models of this content that a node answers for.
pub(crate) fn served<'a>(
    info: &'a NodeInfo,
    fingerprint: &'a str,
) -> impl Iterator<Item = &'a Model> {
    let models = info.serving.iter().map(|served| &served.model);
    models.filter(move |model| model.fingerprint == fingerprint)
}

fn serves(member: &Member<'_>, fingerprint: &str) -> bool {
    served(member.info, fingerprint).next().is_some()
}

/// Whether somebody who is not silent answers for the model.
fn is_served(members: &[Member<'_>], fingerprint: &str) -> bool {
    let mut members = members.iter();
    members.any(|m| m.liveness == Liveness::Alive && serves(m, fingerprint))
}

/// Who could host a model whose host is lost, the first one first: those with room for the host's part
/// before others, and of equals by a hash, so that the same node is not always the first.
pub(crate) fn heirs(members: &[Member<'_>], fingerprint: &str, host_bytes: u64) -> Vec<NodeId> {
    let could = |member: &&Member<'_>| {
        let info = member.info;
        member.liveness == Liveness::Alive
            && member.may_serve
            && info
                .local
                .iter()
                .any(|local| local.fingerprint == fingerprint)
    };
    let mut heirs: Vec<_> = (members.iter().filter(could))
        .map(|member| {
            let lacks_room = member.info.memory_free_bytes < host_bytes;
            let mut hasher = DefaultHasher::new();
            (fingerprint, member.node.to_string()).hash(&mut hasher);
            (lacks_room, hasher.finish(), member.node)
        })
        .collect();
    heirs.sort();
    heirs.into_iter().map(|(_, _, node)| node).collect()
}

/// Whether the model called `name` has lost its host, and has none yet that answers but will.
pub(crate) fn is_between_hosts(members: &[Member<'_>], name: &str) -> bool {
    let claims = members.iter().flat_map(|member| {
        let splits = member.info.splits.iter();
        splits.map(move |split| (member.liveness, split))
    });
    let mut lost = claims.filter(|(liveness, split)| {
        let follows = split.term > 1 && split.stage == SplitStage::Coming;
        is_called(&split.model.name, name) && (*liveness != Liveness::Alive || follows)
    });
    lost.any(|(_, split)| prospect(members, &split.model.fingerprint) == Prospect::Coming)
}

/// Whether the model will have a host again, for whoever waits for one.
pub(crate) fn prospect(members: &[Member<'_>], fingerprint: &str) -> Prospect {
    let claims: Vec<Claim> = (members.iter())
        .flat_map(|member| {
            let splits = member.info.splits.iter();
            splits.map(move |split| claim(member, split))
        })
        .filter(|claim| claim.split.model.fingerprint == fingerprint)
        .collect();
    if claims.is_empty() {
        return Prospect::Whole;
    }
    let of = |liveness| {
        let claims = claims
            .iter()
            .filter(move |claim| claim.liveness == liveness);
        claims.map(|claim| claim.split.stage).max()
    };
    let has_heirs = !heirs(members, fingerprint, 0).is_empty();
    match (of(Liveness::Alive), of(Liveness::Suspect)) {
        (Some(SplitStage::Coming | SplitStage::Ready), _) => Prospect::Coming,
        (Some(SplitStage::Waiting), _) => Prospect::Stuck,
        (None, _) if has_heirs => Prospect::Coming,
        (None, Some(_)) => Prospect::Stuck,
        (None, None) => Prospect::Nobody,
    }
}

#[cfg(test)]
mod tests;
