//! A model that fits whole on another machine: that one is asked to serve it, as the plan says,
//! and requests go there like any others. This node looks on, and splits the model if that machine will not, or does not
//! any more.
//!
//! A machine that lacks the file is asked to fetch it where that takes little more than the layers of a ring would
//! (`fetching`). When the model is dropped here, or this node leaves, the other machine goes on serving it as anything
//! that a node takes up for the mesh; it is dropped there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use engine::ModelInfo;
use mesh::announcement::{Model, NodeInfo};
use mesh::proto::{Liveness, Member, View};
use mesh::{NodeId, Role};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::super::pool::Scene;
use super::fetching::{Headway, TOO_SLOW, Transfer, has_file};
use super::making::{Subject, name_of};
use super::refusals::{Loss, Offers};
use super::{LOOK_SOONEST, is_wanted, with_all};
use crate::loader::Plan;
use crate::membership::Membership;
use crate::models::Models;
use crate::node::Shared;
use crate::peer;
use crate::succession::{SILENT_MS, served};
use crate::wire::{Call, Reply, TakeUp};

/// A machine that has refused a model, or lost it, is not asked for all of it again for so long. It may still run
/// layers.
const SHUNNED_FOR: Duration = Duration::from_secs(60);

/// Who has come says within so long what is on its disk.
pub(super) const KNOWN_AFTER: Duration = Duration::from_secs(10);

/// How long the mesh may take to tell that a machine serves what it says it does.
const TOLD_MAX: Duration = Duration::from_secs(10);

/// A machine that somebody hears nothing from is given up after so long, as a host is.
const SILENT_MAX: Duration = Duration::from_millis(SILENT_MS);

/// Longest time between two looks at it.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Machines that are not to be asked for all of a model, and until when. As many as a mesh has members.
#[derive(Debug, Default)]
pub(super) struct Shunned(BTreeMap<NodeId, Instant>);

impl Shunned {
    fn note(&mut self, nodes: &BTreeSet<NodeId>, now: Instant) {
        self.0.retain(|_, until| now < *until);
        let until = now + SHUNNED_FOR;
        self.0.extend(nodes.iter().map(|node| (*node, until)));
    }

    fn nodes(&self, now: Instant) -> BTreeSet<NodeId> {
        let shunned = self.0.iter().filter(|(_, until)| now < **until);
        shunned.map(|(node, _)| *node).collect()
    }
}

/// Members that may run models, and since when they are known. As many as a mesh has.
#[derive(Debug, Default)]
pub(super) struct Acquainted(BTreeMap<NodeId, Instant>);

impl Acquainted {
    /// Whether all that are here now are known for long enough, so that it is known who has which file.
    fn knows_all(&mut self, members: &BTreeSet<NodeId>, now: Instant) -> bool {
        self.0.retain(|node, _| members.contains(node));
        for node in members {
            self.0.entry(*node).or_insert(now);
        }
        self.0.values().all(|since| now >= *since + KNOWN_AFTER)
    }
}

/// How a machine looks that is to serve the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sight {
    Serves,
    /// It lives, and says nothing of the model.
    Idle,
    Silent,
    Gone,
}

impl Sight {
    fn of(member: Option<&Member>, wanted: &TakeUp) -> Self {
        match member.map(|member| (member, member.liveness)) {
            None | Some((_, Liveness::Dead | Liveness::Left)) => Self::Gone,
            Some((_, Liveness::Suspect)) => Self::Silent,
            Some((member, Liveness::Alive)) => match serves(&member.announcement().info, wanted) {
                true => Self::Serves,
                false => Self::Idle,
            },
        }
    }
}

/// Whether a machine answers for the model by its name, with all of it and with context enough.
fn serves(info: &NodeInfo, wanted: &TakeUp) -> bool {
    let fits =
        |model: &Model| model.name == wanted.model && model.context_length >= wanted.context_tokens;
    let mut splits = info.splits.iter().map(|split| &split.model);
    let is_split = splits.any(|model| model.fingerprint == wanted.fingerprint);
    !is_split && served(info, &wanted.fingerprint).any(fits)
}

/// Follows whether a machine serves the model still. Pure.
#[derive(Debug)]
struct Vigil {
    since: Instant,
    is_told: bool,
    silent_since: Option<Instant>,
}

impl Vigil {
    fn new(now: Instant) -> Self {
        Self {
            since: now,
            is_told: false,
            silent_since: None,
        }
    }

    /// Why it is to be given up, if it is.
    fn observe(&mut self, sight: Sight, now: Instant) -> Option<&'static str> {
        if sight != Sight::Silent {
            self.silent_since = None;
        }
        match sight {
            Sight::Serves => {
                self.is_told = true;
                None
            }
            Sight::Idle if self.is_told || now >= self.since + TOLD_MAX => {
                Some("it does not serve the model any more")
            }
            Sight::Idle => None,
            Sight::Silent => {
                let since = *self.silent_since.get_or_insert(now);
                (now >= since + SILENT_MAX).then_some("it says nothing any more")
            }
            Sight::Gone => Some("it is gone"),
        }
    }
}

/// Whether a machine says that it serves what it was asked for.
fn is_as_wanted(info: &ModelInfo, wanted: &TakeUp) -> Result<(), String> {
    if info.name != wanted.model || info.fingerprint != wanted.fingerprint {
        return Err("it serves another model".to_owned());
    }
    if info.context_tokens < wanted.context_tokens {
        return Err("it has less context for the model".to_owned());
    }
    Ok(())
}

/// A machine that is to run all of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    node: NodeId,
    /// Whether it does so already.
    serves: bool,
    /// It lacks the file, and is to fetch it.
    fetch: Option<Transfer>,
}

/// Why another machine does not run the model.
enum Ended {
    /// Nobody wants it here any more.
    Unwanted,
    /// That machine will not, or does not any more.
    Lost(Loss),
}

/// What is needed to have a model run, while nothing of it runs here.
pub(super) struct Whole<'a> {
    pub(super) shared: &'a Weak<Shared>,
    pub(super) id: u64,
    pub(super) subject: &'a Subject,
    pub(super) plan: &'a Plan,
    /// It is split wherever it fits.
    pub(super) forced: bool,
    pub(super) membership: &'a Arc<Membership>,
    pub(super) shunned: &'a mut Shunned,
    /// What those have said that they would do instead.
    pub(super) offers: &'a mut Offers,
    /// Machines that lack the file are asked only once it is known who has it.
    pub(super) acquainted: &'a mut Acquainted,
}

impl Subject {
    /// The other machine that has room for all of the model, and its file if it must not lack that; the fastest of
    /// several. Not one that answers for it in another way, by another name or with less context: it would refuse.
    fn whole(
        &self,
        scene: &Scene<'_>,
        shunned: &BTreeSet<NodeId>,
        may_lack: bool,
    ) -> Option<NodeId> {
        let refuses = |member: &&Member| {
            let info = &member.announcement().info;
            let lacks = !may_lack && !has_file(scene, member.node);
            lacks || served(info, scene.fingerprint).next().is_some()
        };
        let refusing = scene.view.alive().filter(refuses).map(|member| member.node);
        let without: BTreeSet<NodeId> = shunned.iter().copied().chain(refusing).collect();
        let mut own = scene.own;
        own.memory_bytes = None;
        let elsewhere = Scene {
            own,
            without: &without,
            // A whole model has no stage's buffers; the planner counts its own.
            stage_bytes: 0,
            ..*scene
        };
        self.whole_on(&elsewhere.pool()?)
    }
}

/// Tokens of context that another machine must have for the model. Where the owner names none it need not be more than
/// the model was trained for, however many are planned with.
fn context_tokens(asked: Option<u32>, planned: u32, trained: u32) -> u32 {
    match asked {
        None if trained > 0 => planned.min(trained),
        _ => planned,
    }
}

impl Whole<'_> {
    /// What is asked of another machine.
    fn wanted(&self) -> TakeUp {
        let facts = self.subject.facts(self.forced, 0);
        let trained = self.subject.model.metadata().context_length();
        let trained = trained.unwrap_or_default();
        let (asked, planned) = (self.plan.context_tokens, facts.context_tokens);
        TakeUp {
            model: self.subject.name.clone(),
            fingerprint: facts.fingerprint,
            context_tokens: context_tokens(asked, planned, trained),
            slots: self.plan.slots.unwrap_or(0),
            fetch: false,
            tell_context: true,
        }
    }

    /// Why the model waits here, with what its owner could do about that by what other machines have said; `None`: they
    /// have said nothing that helps.
    pub(super) fn waits(&mut self, reason: &str) -> Option<String> {
        let view = self.membership.view();
        let shunned = self.shunned.nodes(Instant::now());
        let alive = view.alive().map(|member| member.node);
        let present: BTreeSet<NodeId> = alive.filter(|node| shunned.contains(node)).collect();
        self.offers.complete(reason, &present)
    }

    /// The machine that is to run all of the model by the plan; one that does so already comes first. Only for what
    /// this node's owner asked for: what it takes up for the mesh would have been taken up there. A node that
    /// follows a lost host asks nobody: streams wait for it, and loading all of a model takes longer than workers keep the
    /// layers that they have.
    pub(super) fn target(&mut self) -> Option<Target> {
        let is_known = self.is_known();
        let candidate = self.candidate();
        candidate.filter(|target| is_known || target.fetch.is_none())
    }

    /// Waits until it is known who has the file, if a machine might be asked to fetch it.
    pub(super) async fn acquaint(&mut self) {
        while is_wanted(self.shared, self.id, self.membership)
            && self
                .candidate()
                .is_some_and(|target| target.fetch.is_some())
            && !self.is_known()
        {
            sleep(LOOK_SOONEST).await;
        }
    }

    fn is_known(&mut self) -> bool {
        let view = self.membership.view();
        let others = view.alive().filter(|member| {
            let may_serve = member.role() == Role::Serve;
            member.node != view.me && may_serve
        });
        let others: BTreeSet<NodeId> = others.map(|member| member.node).collect();
        self.acquainted.knows_all(&others, Instant::now())
    }

    /// [`Whole::target`], although it may not be known yet who has the file.
    fn candidate(&self) -> Option<Target> {
        let shared = self.shared.upgrade()?;
        if self.forced || !shared.models.is_split_asked(self.id) {
            return None;
        }
        let shunned = self.shunned.nodes(Instant::now());
        let wanted = self.wanted();
        let view = self.membership.view();
        let mut others = view.alive().filter(|member| {
            let is_other = member.node != view.me && !shunned.contains(&member.node);
            is_other && Sight::of(Some(*member), &wanted) == Sight::Serves
        });
        if let Some(member) = others.next() {
            return Some(Target {
                node: member.node,
                serves: true,
                fetch: None,
            });
        }
        if shared.models.split_follows(self.id) {
            return None;
        }
        with_all(&shared, self.subject, self.membership, |scene| {
            self.asked(scene, &shunned)
        })
    }

    /// The machine that is to be asked to run all of the model: one with the file, else one that can have it before long.
    fn asked(&self, scene: &Scene<'_>, shunned: &BTreeSet<NodeId>) -> Option<Target> {
        let target = |node: NodeId, fetch: Option<Transfer>| Target {
            node,
            serves: false,
            fetch,
        };
        if let Some(node) = self.subject.whole(scene, shunned, false) {
            return Some(target(node, None));
        }
        let node = self.subject.whole(scene, shunned, true)?;
        let transfer = self.subject.transfer(scene);
        let is_worth_it = transfer.is_worth_it();
        is_worth_it.then(|| target(node, Some(transfer)))
    }

    /// Has another machine run all of the model, as long as the plan says so and one does. True: nobody wants it here
    /// any more; false: it is to be split.
    pub(super) async fn run(&mut self) -> bool {
        let mut tried = BTreeSet::new();
        while let Some(target) = self.target() {
            let view = self.membership.view();
            let name = name_of(&view, target.node);
            let name: String = name.chars().filter(|c| !c.is_control()).collect();
            match self.on(target, &name).await {
                Ended::Unwanted => return true,
                Ended::Lost(loss) => {
                    let model = &self.subject.name;
                    // As a string: control characters that a machine sends are escaped.
                    let reason = loss.to_string();
                    tracing::warn!(model, node = name, reason, "a model does not run whole");
                    self.offers.note(target.node, &name, &loss);
                    tried.insert(target.node);
                    // All of them: this one may have taken longer than others are shunned, and none comes twice.
                    self.shunned.note(&tried, Instant::now());
                    self.note(Models::split_begins_anew);
                }
            }
        }
        false
    }

    /// Has this machine run it, until it does not any more.
    async fn on(&self, target: Target, name: &str) -> Ended {
        if !target.serves {
            self.note(|models, id| models.split_asks(id, name.to_owned()));
            tokio::select! {
                asked = self.ask(target) => {
                    if let Err(loss) = asked {
                        return Ended::Lost(loss);
                    }
                }
                () = self.unwanted() => return Ended::Unwanted,
            }
        }
        let model = &self.subject.name;
        tracing::info!(model, node = name, "a model runs whole on another machine");
        self.note(|models, id| models.split_is_whole(id, name.to_owned()));
        let wanted = self.wanted();
        let mut views = self.membership.mesh().view();
        let mut vigil = Vigil::new(Instant::now());
        while is_wanted(self.shared, self.id, self.membership) {
            let view: Arc<View> = Arc::clone(&views.borrow_and_update());
            let sight = Sight::of(view.member(target.node), &wanted);
            if let Some(reason) = vigil.observe(sight, Instant::now()) {
                return Ended::Lost(reason.into());
            }
            // News come at any time, and the model may be dropped without any.
            if let Ok(Err(_)) = timeout(LOOK_INTERVAL, views.changed()).await {
                // The mesh is about to be left.
                sleep(LOOK_INTERVAL).await;
            }
        }
        Ended::Unwanted
    }

    /// Asks a machine to load the model, and waits until it answers there.
    async fn ask(&self, target: Target) -> Result<(), Loss> {
        let wanted = TakeUp {
            fetch: target.fetch.is_some(),
            ..self.wanted()
        };
        let call = Call::TakeUp(wanted.clone());
        let mut headway = target
            .fetch
            .map(|transfer| Headway::new(transfer, Instant::now()));
        let replies = peer::call(self.membership.mesh(), target.node, &call).await;
        let mut replies = replies.map_err(|error| error.to_string())?;
        let mut said = None;
        loop {
            let reply = match headway.as_ref().and_then(Headway::until) {
                Some(until) => timeout_at(until, replies.next())
                    .await
                    .map_err(|_| TOO_SLOW)?,
                None => replies.next().await,
            };
            match (reply, &mut headway) {
                (Ok(Reply::Model(info)), _) => {
                    return is_as_wanted(&info, &wanted).map_err(Loss::from);
                }
                (Ok(Reply::Fetching(percent)), Some(headway)) => {
                    headway.observe(percent, Instant::now())?;
                    self.note(|models, id| models.split_fetches(id, percent));
                }
                (Ok(Reply::ContextMax(tokens)), _) if said.is_none() => said = Some(tokens),
                (Ok(_), _) => return Err("it does not say what it serves".into()),
                (Err(error), _) => {
                    let asked = wanted.context_tokens;
                    return Err(Loss::refusal(error.to_string(), said, asked));
                }
            }
        }
    }

    /// Waits until nobody wants the model here any more.
    async fn unwanted(&self) {
        while is_wanted(self.shared, self.id, self.membership) {
            sleep(LOOK_INTERVAL).await;
        }
    }

    fn note(&self, note: impl FnOnce(&Models, u64)) {
        if let Some(shared) = self.shared.upgrade() {
            note(&shared.models, self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use mesh::announcement::{ServedModel, SplitModel};

    use super::*;

    fn at(seconds: u64, start: Instant) -> Instant {
        start + Duration::from_secs(seconds)
    }

    /// Looks at these seconds; gives the second at which the machine is given up.
    fn given_up(sights: &[(u64, Sight)]) -> Option<u64> {
        let start = Instant::now();
        let mut vigil = Vigil::new(start);
        let mut sights = sights.iter();
        let ended = sights.find(|(second, sight)| {
            let reason = vigil.observe(*sight, at(*second, start));
            reason.is_some()
        });
        ended.map(|(second, _)| *second)
    }

    #[test]
    fn a_machine_is_given_up_when_it_is_gone_silent_or_has_dropped_the_model() {
        use Sight::{Gone, Idle, Serves, Silent};
        assert_eq!(given_up(&[(0, Serves), (1, Serves), (900, Serves)]), None);
        assert_eq!(given_up(&[(0, Serves), (1, Gone)]), Some(1));
        assert_eq!(given_up(&[(0, Serves), (1, Idle)]), Some(1));
        // The mesh takes a moment to tell.
        assert_eq!(given_up(&[(0, Idle), (9, Idle), (9, Serves)]), None);
        assert_eq!(given_up(&[(0, Idle), (9, Idle), (10, Idle)]), Some(10));
        // A word that is contradicted is no reason.
        let doubted = [(0, Serves), (1, Silent), (4, Silent), (4, Serves)];
        assert_eq!(given_up(&doubted), None);
        let again = [(0, Silent), (3, Silent), (3, Serves), (4, Silent)];
        assert_eq!(given_up(&again), None);
        assert_eq!(given_up(&[(1, Silent), (4, Silent), (5, Silent)]), Some(5));
    }

    #[test]
    fn who_serves_the_model_does_so_by_its_name_with_all_of_it_and_context_enough() {
        let wanted = TakeUp {
            model: "m".into(),
            fingerprint: "f".into(),
            context_tokens: 4_096,
            slots: 0,
            fetch: false,
            tell_context: false,
        };
        let model = |name: &str, fingerprint: &str, context_length: u32| Model {
            name: name.into(),
            fingerprint: fingerprint.into(),
            context_length,
            ..Model::default()
        };
        let split = |fingerprint: &str| SplitModel {
            model: model("m", fingerprint, 4_096),
            ..SplitModel::default()
        };
        let check = |model: Model, splits: Vec<SplitModel>, expected: bool| {
            let info = NodeInfo {
                serving: vec![ServedModel {
                    model,
                    ..ServedModel::default()
                }],
                splits,
                ..NodeInfo::default()
            };
            assert_eq!(serves(&info, &wanted), expected, "{info:?}");
        };
        check(model("m", "f", 4_096), vec![], true);
        check(model("m", "f", 8_192), vec![split("g")], true);
        check(model("m", "f", 4_095), vec![], false);
        check(model("n", "f", 4_096), vec![], false);
        check(model("m", "g", 4_096), vec![], false);
        check(model("m", "f", 4_096), vec![split("f")], false);
        assert!(!serves(&NodeInfo::default(), &wanted));
    }

    #[test]
    fn what_the_owner_asks_for_is_wanted_and_else_no_more_than_the_model_has() {
        assert_eq!(context_tokens(Some(65_536), 65_536, 4_096), 65_536);
        assert_eq!(context_tokens(None, 8_192, 4_096), 4_096);
        assert_eq!(context_tokens(None, 8_192, 131_072), 8_192);
        // The header does not say.
        assert_eq!(context_tokens(None, 8_192, 0), 8_192);
    }

    #[test]
    fn who_refuses_is_not_asked_for_a_while() {
        let (mut shunned, start) = (Shunned::default(), Instant::now());
        let node = |number| NodeId::from_bytes([number; 32]);
        let (one, other) = (node(1), node(2));
        let (only_one, only_other) = (BTreeSet::from([one]), BTreeSet::from([other]));
        assert!(shunned.nodes(start).is_empty());
        shunned.note(&only_one, start);
        shunned.note(&only_other, at(30, start));
        assert_eq!(shunned.nodes(at(59, start)), BTreeSet::from([one, other]));
        assert_eq!(shunned.nodes(at(60, start)), BTreeSet::from([other]));
        shunned.note(&only_one, at(90, start));
        assert_eq!(shunned.0.len(), 1, "what is over is forgotten");
        // Others of the same round are shunned as long as the last one.
        let both = BTreeSet::from([one, other]);
        shunned.note(&both, at(700, start));
        assert_eq!(shunned.nodes(at(759, start)), both);
        assert!(shunned.nodes(at(760, start)).is_empty());
    }

    #[test]
    fn who_has_the_file_is_known_once_all_are_here_for_a_while() {
        let (mut acquainted, start) = (Acquainted::default(), Instant::now());
        let node = |number| NodeId::from_bytes([number; 32]);
        let one = BTreeSet::from([node(1)]);
        let both = BTreeSet::from([node(1), node(2)]);
        let mut check = |members: &BTreeSet<NodeId>, second: u64, expected: bool| {
            let is_known = acquainted.knows_all(members, at(second, start));
            assert_eq!(is_known, expected, "{second}");
        };
        check(&one, 0, false);
        check(&one, 9, false);
        check(&one, 10, true);
        check(&both, 11, false);
        check(&both, 20, false);
        check(&both, 21, true);
        // One that comes back begins anew.
        check(&one, 22, true);
        check(&both, 23, false);
        check(&both, 33, true);
    }
}
