//! Which model a node takes up by itself, and when. Pure: a function of what the mesh says and of
//! how long that has been so.
//!
//! - A node that joins without a model of its own is given the one that the mesh lacks most.
//! - A model that has lost its last server is taken up again, by a standby node if there is one.
//! - A model that is asked for much more than others gets another server, or its first.
//!
//! Every node decides for itself, from the same announcements. So that not all of them do the same
//! thing at once, they have an order, which differs from model to model; each waits a little longer
//! than the one before it and looks again.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use mesh::NodeId;

/// A model must be without a server for so long, ms: a restart of its host is no reason to load it
/// elsewhere.
const LOST_MS: u64 = 8_000;

/// Demand must last so long, ms.
const HOT_MS: u64 = 20_000;

/// Requests a minute below which no model is hot.
const HOT_PER_MINUTE: f32 = 10.0;

/// How much more a hot model is asked for than the coldest, per server.
const HOT_RATIO: f32 = 3.0;

/// How much longer each node waits than the one before it, ms: longer than an announcement takes
/// to get around.
const TURN_MS: u64 = 4_000;

/// The last turn; all later nodes act in it together, since none of the earlier ones did.
const TURNS_MAX: u64 = 8;

/// After so long, ms, some node begins to load a model that has lost its last server, if one can.
const TAKEN_UP_MS: u64 = 60_000;

/// Until a machine that dies without a word is out of all tables, ms: five seconds until a silent connection
/// is closed, twelve from the first strike to the second, and the news' way. Simulations have 18.1 s at
/// most.
const DEATH_MS: u64 = 19_000;

/// Pause between two decisions of a node, ms.
const LOOK_MS: u64 = 1_000;

// 19 s until the death is known, 8 s to come back, 8 turns of 4 s, and 1 s until the node whose turn it is
// looks: 60 s.
const _: () = assert!(DEATH_MS + LOST_MS + TURNS_MAX * TURN_MS + LOOK_MS <= TAKEN_UP_MS);

/// After it took up a model a node takes up no hot one for so long, ms: loading takes time, and the effect
/// on demand more. Nor does it try the same model again. Others that are lost do not wait.
const REST_MS: u64 = 60_000;

/// A joiner waits so long for the table of the mesh, ms, before it is given a model.
const SETTLE_MS: u64 = 1_500;

/// A model that was dropped by hand is not taken up again for so long, ms.
const DROPPED_MS: u64 = 10 * 60_000;

/// Models that are remembered as served, so that their loss is noticed.
const KNOWN_MAX: usize = 256;

/// A node of the mesh, as far as this matters.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Member {
    /// Who.
    pub(crate) node: NodeId,
    /// It could run a model and runs none.
    pub(crate) standby: bool,
    /// Models that answer there, or are being loaded.
    pub(crate) serving: Vec<String>,
    /// Models on its disk.
    pub(crate) local: Disk,
}

/// Models on a member's disk, and for which of them it has free memory.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Disk(BTreeMap<String, bool>);

impl Disk {
    fn has(&self, model: &str) -> bool {
        self.0.contains_key(model)
    }

    fn has_room(&self, model: &str) -> bool {
        self.0.get(model).copied().unwrap_or(false)
    }
}

/// Names, and whether there is room for each.
impl FromIterator<(String, bool)> for Disk {
    fn from_iter<I: IntoIterator<Item = (String, bool)>>(models: I) -> Self {
        Self(models.into_iter().collect())
    }
}

/// A model on this node's disk that fits into its free memory.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fitting {
    /// Its name.
    pub(crate) name: String,
    /// Its size, bytes: the measure of how good it is.
    pub(crate) size_bytes: u64,
}

/// What is known at one moment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scene {
    /// When, ms.
    pub(crate) now_ms: u64,
    /// This node.
    pub(crate) me: NodeId,
    /// Living members, this one among them.
    pub(crate) members: Vec<Member>,
    /// What this node could load.
    pub(crate) fitting: Vec<Fitting>,
    /// Requests per minute of each model in the whole mesh.
    pub(crate) demand: BTreeMap<String, f32>,
    /// Whether this node may take up models at all.
    pub(crate) willing: bool,
    /// Whether it is to be given a model because it came with none.
    pub(crate) wants_assignment: bool,
}

/// Why a model is taken up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The mesh lacks it most.
    Assigned,
    /// It has no server any more.
    Lost,
    /// It is asked for much.
    Hot,
}

/// Remembers since when things are as they are.
#[derive(Debug, Default)]
pub(crate) struct Promoter {
    first_ms: Option<u64>,
    assigned: bool,
    /// Models that had a server, and when one was last seen.
    served_ms: BTreeMap<String, u64>,
    hot_since_ms: BTreeMap<String, u64>,
    dropped_ms: BTreeMap<String, u64>,
    /// The same by their content, as far as that was known: others may call it by any name.
    dropped_content_ms: BTreeMap<String, u64>,
    /// Models that this node took up lately, and when.
    taken_ms: BTreeMap<String, u64>,
}

impl Promoter {
    /// The owner of this node dropped a model, with this fingerprint if that is known.
    pub(crate) fn dropped(&mut self, model: &str, fingerprint: Option<String>, now_ms: u64) {
        self.dropped_ms.insert(model.to_owned(), now_ms);
        if let Some(fingerprint) = fingerprint {
            self.dropped_content_ms.insert(fingerprint, now_ms);
        }
        self.assigned = true;
    }

    /// Whether the owner of this node dropped a model of this content not long ago, whatever it was called.
    pub(crate) fn was_dropped(&self, fingerprint: &str, now_ms: u64) -> bool {
        let at = self.dropped_content_ms.get(fingerprint);
        at.is_some_and(|at| now_ms < at.saturating_add(DROPPED_MS))
    }

    /// What to load now, if anything.
    pub(crate) fn decide(&mut self, scene: &Scene) -> Option<(String, Reason)> {
        let now_ms = scene.now_ms;
        let first_ms = *self.first_ms.get_or_insert(now_ms);
        self.observe(scene);
        if !scene.willing {
            return None;
        }
        let chosen = if scene.wants_assignment && !self.assigned {
            if now_ms < first_ms + SETTLE_MS {
                return None;
            }
            self.assigned = true;
            assign(scene).map(|model| (model, Reason::Assigned))
        } else {
            self.lost(scene)
                .map(|model| (model, Reason::Lost))
                .or_else(|| self.hot(scene).map(|model| (model, Reason::Hot)))
        };
        if let Some((model, _)) = &chosen {
            self.taken_ms.insert(model.clone(), now_ms);
        }
        chosen
    }

    /// Notes who serves what, and what is hot. [`Promoter::decide`] does so too.
    pub(crate) fn observe(&mut self, scene: &Scene) {
        let now_ms = scene.now_ms;
        self.dropped_ms.retain(|_, at| now_ms < *at + DROPPED_MS);
        self.dropped_content_ms
            .retain(|_, at| now_ms < *at + DROPPED_MS);
        self.taken_ms.retain(|_, at| now_ms < *at + REST_MS);
        let servers = servers(scene);
        for model in servers.keys() {
            if self.served_ms.len() < KNOWN_MAX || self.served_ms.contains_key(*model) {
                self.served_ms.insert((*model).to_owned(), now_ms);
            }
        }
        let hot: BTreeSet<&str> = hot_models(scene, &servers).collect();
        self.hot_since_ms
            .retain(|model, _| hot.contains(model.as_str()));
        for model in hot {
            self.hot_since_ms.entry(model.to_owned()).or_insert(now_ms);
        }
    }

    /// A model of ours without a server whose turn it is, the most wanted first.
    fn lost(&self, scene: &Scene) -> Option<String> {
        let servers = servers(scene);
        let mut found: Vec<&Fitting> = self
            .own(scene)
            .filter(|model| !servers.contains_key(model.name.as_str()))
            .filter(|model| {
                let since = self.served_ms.get(&model.name);
                let wait_ms = LOST_MS + turn(scene, &model.name) * TURN_MS;
                since.is_some_and(|since| scene.now_ms >= since + wait_ms)
            })
            .collect();
        let wanted = |model: &Fitting| scene.demand.get(&model.name).copied().unwrap_or(0.0);
        found.sort_by(|a, b| {
            let by_demand = wanted(b).total_cmp(&wanted(a));
            by_demand
                .then(b.size_bytes.cmp(&a.size_bytes))
                .then(a.name.cmp(&b.name))
        });
        found.first().map(|model| model.name.clone())
    }

    /// A hot model of ours whose turn it is; only for a node that runs nothing and does not rest.
    fn hot(&self, scene: &Scene) -> Option<String> {
        let me = scene
            .members
            .iter()
            .find(|member| member.node == scene.me)?;
        if !me.standby || !self.taken_ms.is_empty() {
            return None;
        }
        let hot = self.own(scene).filter(|model| {
            let since = self.hot_since_ms.get(&model.name);
            let wait_ms = HOT_MS + turn(scene, &model.name) * TURN_MS;
            since.is_some_and(|since| scene.now_ms >= since + wait_ms)
        });
        let wanted = |name: &str| scene.demand.get(name).copied().unwrap_or(0.0);
        hot.max_by(|a, b| {
            wanted(&a.name)
                .total_cmp(&wanted(&b.name))
                .then(b.name.cmp(&a.name))
        })
        .map(|model| model.name.clone())
    }

    /// What this node could load, was not told to drop, and did not try just now.
    fn own<'a>(&'a self, scene: &'a Scene) -> impl Iterator<Item = &'a Fitting> {
        let serving = scene.members.iter().find(|member| member.node == scene.me);
        scene.fitting.iter().filter(move |model| {
            let serves = serving.is_some_and(|me| me.serving.contains(&model.name));
            let dropped = self.dropped_ms.contains_key(&model.name);
            !serves && !dropped && !self.taken_ms.contains_key(&model.name)
        })
    }
}

/// How many nodes serve each model.
fn servers(scene: &Scene) -> BTreeMap<&str, u32> {
    let mut servers = BTreeMap::new();
    for model in scene.members.iter().flat_map(|member| &member.serving) {
        *servers.entry(model.as_str()).or_insert(0) += 1;
    }
    servers
}

/// Models that are asked for much more, per server, than the coldest one. One that nobody serves is
/// as hot as with a single server.
fn hot_models<'a>(
    scene: &'a Scene,
    servers: &'a BTreeMap<&str, u32>,
) -> impl Iterator<Item = &'a str> {
    let per_server = |model: &str| {
        let demand = scene.demand.get(model).copied().unwrap_or(0.0);
        demand / servers.get(model).copied().unwrap_or(1) as f32
    };
    scene
        .demand
        .keys()
        .map(String::as_str)
        .filter(move |model| {
            // What is alone has nothing colder to compare with.
            let others = servers.keys().filter(|other| *other != model);
            let coldest = others.map(|other| per_server(other)).reduce(f32::min);
            let rate = per_server(model);
            rate >= HOT_PER_MINUTE && rate >= HOT_RATIO * coldest.unwrap_or(0.0)
        })
}

/// The model that the mesh lacks most: asked for and not served, then not served at all, then the
/// one with the most demand for each server; the largest of equals.
fn assign(scene: &Scene) -> Option<String> {
    let servers = servers(scene);
    let lack = |model: &Fitting| {
        let demand = scene.demand.get(&model.name).copied().unwrap_or(0.0);
        match servers.get(model.name.as_str()) {
            None => (1, demand),
            // Each server takes some demand as given, so that an idle model with three servers
            // lacks less than one with one.
            Some(count) => (0, (demand + 1.0) / *count as f32),
        }
    };
    let lacks_more = |a: &&Fitting, b: &&Fitting| {
        let ((unserved_a, demand_a), (unserved_b, demand_b)) = (lack(a), lack(b));
        let order = unserved_a
            .cmp(&unserved_b)
            .then(demand_a.total_cmp(&demand_b));
        order
            .then(a.size_bytes.cmp(&b.size_bytes))
            .then(b.name.cmp(&a.name))
    };
    scene
        .fitting
        .iter()
        .max_by(lacks_more)
        .map(|model| model.name.clone())
}

/// This node's place among those that have `model`: who has room for it comes first, since others can't
/// load it alone; of these standby nodes, then by a hash, so that the same node is not always the
/// first.
fn turn(scene: &Scene, model: &str) -> u64 {
    let rank = |member: &Member| {
        let mut hasher = DefaultHasher::new();
        (model, member.node.to_string()).hash(&mut hasher);
        let is_full = !member.local.has_room(model);
        (is_full, !member.standby, hasher.finish(), member.node)
    };
    let could = |member: &&Member| member.node == scene.me || member.local.has(model);
    let Some(own) = scene
        .members
        .iter()
        .find(|member| member.node == scene.me)
        .map(rank)
    else {
        return TURNS_MAX;
    };
    let before = scene
        .members
        .iter()
        .filter(could)
        .filter(|member| rank(member) < own);
    (before.count() as u64).min(TURNS_MAX)
}

#[cfg(test)]
mod tests;
