//! What the keeper of a ring sees of it, and of others that there could be: how fast they are, who comes and goes,
//! and whether to move.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mesh::NodeId;
use split::plan::Speed;
use split::recovery::{Advantage, Event, Recovery, Sight, State};
use split::ring::{Ring, RingWatch, Seat};
use split::spec::RingId;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::super::pool::{Scene, threads};
use super::making::Share;
use super::own;
use super::pacing::Pacing;
use super::ring::RingKeeper;

/// A ring that a move leads to must be so much faster: what made it pay may have passed.
const FASTER: f64 = 1.1;

/// What raising is taken to last before one was raised.
const RAISE_GUESS: Duration = Duration::from_secs(20);

/// What is under way.
#[derive(Default)]
pub(super) struct Work {
    pub(super) shares: BTreeMap<u32, Share>,
    pub(super) raised: Option<(u32, Box<Ring>)>,
    pub(super) tasks: BTreeMap<u32, AbortOnDropHandle<()>>,
    /// Numbers of rings that were raised beside one that runs.
    pub(super) numbers: BTreeMap<u32, RingId>,
    pub(super) watches: BTreeMap<u32, RingWatch>,
    /// Rings that streams have left, and when to let them go.
    pub(super) parting: Vec<(Instant, RingWatch)>,
    /// The ring that runs, or ran last, and until when its workers keep its layers if it is lost.
    pub(super) pacing: Option<(u32, Pacing)>,
    pub(super) held_until: Option<Instant>,
    pub(super) advantage: Advantage,
    /// Since when the present one is raised, and how long the last one took.
    pub(super) raising_since: Option<Instant>,
    pub(super) raise_took: Option<Duration>,
    /// The lives of members.
    pub(super) lives: BTreeMap<NodeId, u64>,
    pub(super) looks: u64,
    /// Asks machines how far they are from each other.
    pub(super) asking: Option<AbortOnDropHandle<()>>,
}

impl Drop for Work {
    /// Workers need not wait for a decode thread that has nothing to do.
    fn drop(&mut self) {
        let parting = self.parting.iter().map(|(_, watch)| watch);
        parting
            .chain(self.watches.values())
            .for_each(RingWatch::let_go);
    }
}

impl RingKeeper<'_> {
    /// Machines that were started anew.
    pub(super) fn returned(&self, work: &mut Work) -> Vec<Event<NodeId>> {
        let view = self.membership.view();
        let lives = view.alive().map(|member| (member.node, member.incarnation));
        let lives: BTreeMap<NodeId, u64> = lives.collect();
        let before = |node: &NodeId| work.lives.get(node).copied();
        let again = lives
            .iter()
            .filter(|(node, life)| before(node).is_some_and(|old| old < **life));
        let again = again.map(|(node, _)| Event::Returned(*node)).collect();
        // Those that are gone are remembered: they may come back.
        for (node, life) in lives {
            work.lives.insert(node, life);
        }
        work.lives.retain(|node, _| view.member(*node).is_some());
        again
    }

    /// What happens every second.
    pub(super) fn look(
        &self,
        work: &mut Work,
        recovery: &Recovery<NodeId>,
        now: Duration,
    ) -> Vec<Event<NodeId>> {
        let (due, parting) = std::mem::take(&mut work.parting)
            .into_iter()
            .partition(|(at, _)| *at <= Instant::now());
        work.parting = parting;
        due.iter()
            .for_each(|(_, watch): &(Instant, RingWatch)| watch.let_go());
        let Some((epoch, pacing)) = &mut work.pacing else {
            return Vec::new();
        };
        let is_running =
            matches!(recovery.state(), State::Running { epoch: e, .. } if *e == *epoch);
        if !is_running {
            return Vec::new();
        }
        let is_active = pacing.observe();
        let leaving: Vec<_> = pacing.leaving().into_iter().map(Event::Leaves).collect();
        if !leaving.is_empty() {
            return leaving;
        }
        let Some(share) = work.shares.get(epoch).filter(|_| is_active) else {
            return Vec::new();
        };
        self.learn(pacing);
        let none = BTreeSet::new();
        let (token_s, first_token) = self.with_scene(&none, &share.held, false, |scene| {
            let (seats, start) = (&share.seats, self.made.start);
            (
                self.subject.token_s(scene, seats, start),
                self.subject.first_token(scene, seats, start),
            )
        });
        let Some(token_s) = token_s.filter(|token_s| *token_s > 0.0) else {
            return Vec::new();
        };
        let measured = pacing.measured();
        self.note(|models, id| models.split_measured(id, 1.0 / token_s, first_token, measured));
        if !recovery.may_move(now) {
            work.advantage.reset();
            return Vec::new();
        }
        let without = recovery.without(now);
        let best = self.with_scene(&without, &share.held, false, |scene| {
            self.subject.share(scene, self.made.start)
        });
        let pause = self.pause(share, work.raise_took);
        let sight = best.ok().map(|best| Sight {
            running_s: token_s,
            best_s: best.token_s,
            pause,
            is_active,
        });
        match work.advantage.observe(sight, now) {
            true => vec![Event::Better],
            false => Vec::new(),
        }
    }

    /// Notes what was measured, for the plans to come.
    fn learn(&self, pacing: &Pacing) {
        let Some(shared) = self.shared.upgrade() else {
            return;
        };
        let view = self.membership.view();
        let model = self.subject.fingerprint.to_string();
        let here = self.made.start..self.subject.layer_count();
        let here_bytes = self.subject.active_bytes(here);
        for (node, speed) in pacing.speeds(self.me(), here_bytes) {
            let compute = match node == self.me() {
                true => shared.compute.get().copied(),
                false => view
                    .member(node)
                    .and_then(|m| m.announcement().info.compute),
            };
            shared
                .speeds
                .note_model(&model, node, threads(compute), speed);
        }
    }

    /// How long streams would wait for a move: the new ring comes up, and evaluates again what they have.
    fn pause(&self, share: &Share, raise_took: Option<Duration>) -> Duration {
        let tokens = self.made.backend.load().kv_used_tokens;
        let refill = share.prefill_row.saturating_mul(tokens);
        refill.saturating_add(raise_took.unwrap_or(RAISE_GUESS))
    }

    /// Who could take part.
    fn with_scene<T>(
        &self,
        without: &BTreeSet<NodeId>,
        held: &BTreeMap<NodeId, u64>,
        beside: bool,
        work: impl FnOnce(&Scene<'_>) -> T,
    ) -> T {
        let shared = self.shared.upgrade();
        let fingerprint = self.subject.fingerprint.to_string();
        let measured = |node: NodeId, threads: u32| {
            let speeds = &shared.as_ref()?.speeds;
            speeds.of_model(&fingerprint, node, threads)
        };
        let distances = self.membership.distances();
        let told = |from: NodeId, to: NodeId| distances.as_ref()?.us(from, to);
        let now = Instant::now();
        let most_bytes = |node: NodeId| self.made.rooms.most_bytes(node, now);
        work(&Scene {
            view: &self.membership.view(),
            own: own(shared.as_deref(), self.me(), None),
            fingerprint: &fingerprint,
            measured: &measured,
            told: &told,
            stage_bytes: self.subject.stage_bytes,
            without,
            held,
            beside,
            most_bytes: &most_bytes,
        })
    }

    /// Has machines measure round trips that nobody has told, for the plans to come; one round at a time.
    pub(super) fn ask_distances(&self, work: &mut Work) {
        let is_asking = |task: &AbortOnDropHandle<()>| !task.is_finished();
        let Some(distances) = self.membership.distances() else {
            return;
        };
        if work.asking.as_ref().is_some_and(is_asking) {
            return;
        }
        let running = work.pacing.as_ref().and_then(|(e, _)| work.shares.get(e));
        let held = running.map(|share| share.held.clone()).unwrap_or_default();
        let none = BTreeSet::new();
        let unlinked = self.with_scene(&none, &held, false, |scene| scene.unlinked());
        let ask = async move { distances.ask(&unlinked).await };
        work.asking = Some(AbortOnDropHandle::new(tokio::spawn(ask)));
    }

    /// Makes a plan. That of a move leaves the ring that runs its memory if it can, and must lead to something
    /// better, unless a machine leaves.
    pub(super) fn plan(
        &self,
        epoch: u32,
        without: &BTreeSet<NodeId>,
        is_move: bool,
        work: &mut Work,
    ) -> Event<NodeId> {
        let start = self.made.start;
        let plan = |held: &BTreeMap<NodeId, u64>, beside: bool| {
            self.with_scene(without, held, beside, |scene| {
                self.subject.share(scene, start)
            })
        };
        let running = work.pacing.as_ref().and_then(|(e, _)| work.shares.get(e));
        let is_held = work.held_until.is_none_or(|until| Instant::now() < until);
        let held = running.filter(|_| is_held).map(|share| share.held.clone());
        let held = held.unwrap_or_default();
        let (share, beside) = match running {
            Some(_) | None if !is_move => {
                let best = plan(&held, false);
                let stand_in = running.filter(|_| is_held).and_then(|running| {
                    self.with_scene(without, &held, false, |scene| {
                        self.subject.stand_in(scene, running, start)
                    })
                });
                match (best, stand_in) {
                    (Ok(best), Some(stand_in)) if stand_in.is_worth_it(&best) => {
                        (Ok(stand_in), false)
                    }
                    (best, _) => (best, false),
                }
            }
            None => (Err("no ring runs".to_owned()), false),
            Some(running) => {
                let leaves = running
                    .seats
                    .iter()
                    .any(|seat| without.contains(&seat.node));
                let token_s = self.with_scene(&BTreeSet::new(), &held, false, |scene| {
                    self.subject.token_s(scene, &running.seats, start)
                });
                let is_faster = |share: &Share| {
                    leaves || token_s.is_some_and(|now| now > share.token_s * FASTER)
                };
                match plan(&held, true) {
                    Ok(share) if is_faster(&share) => (Ok(share), true),
                    _ => {
                        let share = plan(&held, false).and_then(|share| match is_faster(&share) {
                            true => Ok(share),
                            false => Err("no other ring is faster".to_owned()),
                        });
                        (share, false)
                    }
                }
            }
        };
        match share {
            Ok(share) => {
                let workers = share.seats.iter().map(|seat| seat.node).collect();
                work.shares.insert(epoch, share);
                Event::Planned {
                    epoch,
                    workers,
                    beside,
                }
            }
            Err(text) => Event::NoPlan { epoch, text },
        }
    }

    /// Shares with the bytes that they read for a token, and the speed that they were planned with.
    pub(super) fn expected(&self, share: &Share) -> Vec<(Seat, u64, Speed)> {
        let none = BTreeSet::new();
        let pool = self.with_scene(&none, &share.held, false, |scene| scene.pool());
        let speed = |node: NodeId| {
            let pool = pool.as_ref()?;
            let mut candidates = pool.candidates().iter();
            Some(candidates.find(|candidate| candidate.id == node)?.speed)
        };
        let seats = share.seats.iter().filter_map(|seat| {
            let bytes = self.subject.active_bytes(seat.layers.clone());
            Some((seat.clone(), bytes, speed(seat.node)?))
        });
        seats.collect()
    }
}
