//! Keeps a ring up: carries out what [`Recovery`] decides, and tells it what happens.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use mesh::NodeId;
use split::layers::Loading;
use split::recovery::{Effect, Event, Recovery};
use split::ring::{Ring, RingPlan, Seat};
use split::spec::{Precision, RingId};
use split::station::Station;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use super::super::stages::Word;
use super::making::{Made, Subject};
use super::outlook::Work;
use super::pacing::Pacing;
use super::{is_wanted, until};
use crate::membership::Membership;
use crate::node::Shared;

/// How long a worker keeps its stage when it hears nothing.
const LEASE: Duration = Duration::from_secs(30);

/// How long workers may take to load: they cut their slices first, from a slow disk.
const LOAD_MAX: Duration = Duration::from_secs(600);

/// How long a whole ring may take.
const RAISE_MAX: Duration = Duration::from_secs(660);

/// Shortest time between two looks at the members.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// News of rings that wait.
const NEWS_MAX: usize = 16;

/// A ring that was moved away from is let go after so long, whether or not the decode thread has seen the
/// new one: it may have nothing to do. A step that runs is over by then.
const PARTING: Duration = Duration::from_secs(2);

/// Every so many looks measured speeds are written down.
const SAVE_LOOKS: u64 = 30;

/// One model's ring, while this node is in one mesh.
pub(super) struct RingKeeper<'a> {
    pub(super) shared: Weak<Shared>,
    pub(super) id: u64,
    pub(super) subject: &'a Subject,
    pub(super) made: &'a mut Made,
    pub(super) membership: Arc<Membership>,
    pub(super) station: Station,
}

/// What came of raising.
enum News {
    Raised(u32, Box<Ring>),
    Failed(Event<NodeId>),
    /// A worker lacks so many bytes for what it was planned with.
    Refused {
        epoch: u32,
        node: NodeId,
        missing_bytes: u64,
        text: String,
    },
}

impl RingKeeper<'_> {
    /// Until the mesh is left, the model is dropped, or the node is gone.
    pub(super) async fn run(mut self) {
        let began = Instant::now();
        let mut recovery = Recovery::new(self.made.epoch, RAISE_MAX);
        let (sender, mut news) = mpsc::channel(NEWS_MAX);
        let mut work = Work::default();
        let mut view = self.membership.mesh().view();
        let mut looks = Instant::now() + LOOK_INTERVAL;
        let mut events = VecDeque::from([Event::Begin]);
        loop {
            // Each event leads to few others.
            while let Some(event) = events.pop_front() {
                for effect in recovery.handle(event, began.elapsed()) {
                    events.extend(self.apply(effect, &mut work, &sender));
                }
            }
            let wake = recovery.next_wake().map(|at| began + at);
            tokio::select! {
                Some(news) = news.recv() => events.extend(self.heard(news, &mut work)),
                () = until(wake) => events.push_back(Event::Time),
                () = sleep_until(looks) => {
                    looks = Instant::now() + LOOK_INTERVAL;
                    if !self.is_wanted() {
                        recovery.handle(Event::Stop, began.elapsed());
                        self.say(Word::Down("the model is no longer served here".into()));
                        self.save().await;
                        return;
                    }
                    if view.has_changed().unwrap_or(false) {
                        view.mark_unchanged();
                        events.extend(self.returned(&mut work));
                        events.push_back(Event::Changed);
                    }
                    events.extend(self.look(&mut work, &recovery, began.elapsed()));
                    work.looks += 1;
                    if work.looks.is_multiple_of(SAVE_LOOKS) {
                        self.save().await;
                        self.ask_distances(&mut work);
                    }
                }
            }
        }
    }

    async fn save(&self) {
        if let Some(shared) = self.shared.upgrade() {
            // What was measured can be measured again.
            let _ = tokio::task::spawn_blocking(move || shared.speeds.save()).await;
        }
    }

    /// Whether the model is still in the table, this node its host, and the mesh the same.
    fn is_wanted(&self) -> bool {
        is_wanted(&self.shared, self.id, &self.membership)
    }

    fn heard(&mut self, news: News, work: &mut Work) -> Option<Event<NodeId>> {
        Some(match news {
            News::Raised(epoch, ring) => {
                work.watches.insert(epoch, ring.watch());
                work.raised = Some((epoch, ring));
                work.raise_took = work.raising_since.take().map(|since| since.elapsed());
                Event::Raised { epoch }
            }
            News::Failed(event) => event,
            News::Refused {
                epoch,
                node,
                missing_bytes,
                text,
            } => {
                let share = work.shares.get(&epoch);
                let planned = share.and_then(|share| share.held.get(&node).copied());
                let planned = planned.unwrap_or_default();
                let rooms = &mut self.made.rooms;
                let is_asked = rooms.refused(node, planned, missing_bytes, Instant::now());
                Event::Lost {
                    epoch,
                    suspect: (!is_asked).then_some(node),
                    accuser: None,
                    text,
                }
            }
        })
    }

    /// Does it; gives what is known at once.
    fn apply(
        &mut self,
        effect: Effect<NodeId>,
        work: &mut Work,
        news: &mpsc::Sender<News>,
    ) -> Option<Event<NodeId>> {
        match effect {
            Effect::Plan {
                epoch,
                without,
                is_move,
            } => {
                self.made.epoch = self.made.epoch.max(epoch);
                return Some(self.plan(epoch, &without, is_move, work));
            }
            Effect::Raise { epoch, beside, .. } => {
                if let Some(share) = work.shares.get(&epoch) {
                    let stages = share.loading(&self.membership.view());
                    self.note(|models, id| models.split_loads(id, stages));
                    if beside {
                        // Under a number of its own, the ring that runs keeps its leases.
                        work.numbers.insert(epoch, RingId(rand::random()));
                    }
                    let number = work.numbers.get(&epoch).copied();
                    let number = number.unwrap_or(self.made.ring);
                    work.raising_since = Some(Instant::now());
                    let task = self.raise(number, epoch, share.seats.clone(), news.clone());
                    work.tasks.insert(epoch, task);
                }
            }
            Effect::Release { epoch } => self.release(epoch, work),
            Effect::Resume { epoch } => self.resume(epoch, work),
            Effect::Suspend { text } => {
                tracing::warn!(
                    model = self.subject.name,
                    reason = text,
                    "a split model pauses"
                );
                self.note(|models, id| models.split_pauses(id, text));
            }
            Effect::Fail { text } => self.say(Word::Down(text)),
            Effect::Waiting { text } => {
                self.note(|models, id| models.split_waits(id, text));
            }
        }
        None
    }

    fn release(&self, epoch: u32, work: &mut Work) {
        work.tasks.remove(&epoch);
        work.numbers.remove(&epoch);
        let raised = work.raised.as_ref();
        if raised.is_some_and(|(raised, _)| *raised == epoch) {
            work.raised = None;
        }
        let running = work.pacing.as_ref();
        match running.is_some_and(|(running, _)| *running == epoch) {
            // What it has of its workers stays there until the leases end, or the next ring takes it.
            true => work.held_until = Some(Instant::now() + LEASE),
            false => {
                work.shares.remove(&epoch);
            }
        }
        if let Some(watch) = work.watches.remove(&epoch) {
            work.parting.push((Instant::now() + PARTING, watch));
        }
    }

    fn resume(&mut self, epoch: u32, work: &mut Work) {
        let Some((_, ring)) = work.raised.take().filter(|(raised, _)| *raised == epoch) else {
            return;
        };
        if let Some(number) = work.numbers.remove(&epoch) {
            self.made.ring = number;
        }
        work.held_until = None;
        let watch = ring.watch();
        self.say(Word::Ring(ring));
        work.advantage.reset();
        let pacing = work.shares.get(&epoch).map(|share| {
            let view = self.membership.view();
            let layout = self
                .subject
                .layout(&view, self.me(), self.made.start, share);
            tracing::info!(model = self.subject.name, %layout, "a split model runs");
            let backend = Arc::clone(&self.made.backend);
            self.note(|models, id| models.split_runs(id, backend, layout));
            (epoch, Pacing::new(watch, self.expected(share)))
        });
        // Shares of rings before are of no use any more.
        let before = std::mem::replace(&mut work.pacing, pacing);
        if let Some((before, _)) = before {
            work.shares.remove(&before);
        }
    }

    pub(super) fn me(&self) -> NodeId {
        self.membership.mesh().node_id()
    }

    fn precision(&self) -> Precision {
        let shared = self.shared.upgrade();
        shared.map_or_else(Precision::default, |shared| shared.settings.split_precision)
    }

    pub(super) fn note(&self, note: impl FnOnce(&crate::models::Models, u64)) {
        if let Some(shared) = self.shared.upgrade() {
            note(&shared.models, self.id);
        }
    }

    fn say(&self, word: Word) {
        self.made.words.say(word);
    }

    fn raise(
        &self,
        ring: RingId,
        epoch: u32,
        workers: Vec<Seat>,
        news: mpsc::Sender<News>,
    ) -> AbortOnDropHandle<()> {
        let room = &self.made.room;
        let plan = RingPlan {
            ring,
            epoch,
            model: self.subject.fingerprint,
            workers,
            width: self.subject.width,
            kv_tokens: room.kv_tokens,
            sequences: room.sequences,
            rows_max: room.rows_max,
            precision: self.precision(),
            lease: LEASE,
            load_max: LOAD_MAX,
        };
        let station = self.station.clone();
        let (shared, id) = (self.shared.clone(), self.id);
        AbortOnDropHandle::new(tokio::spawn(async move {
            let mut progress = |node: NodeId, loading: Loading| {
                if let Some(shared) = shared.upgrade() {
                    shared.models.split_loaded(id, node, loading);
                }
            };
            let raised = station.raise(plan, &mut progress).await;
            if let Err(error) = &raised
                && let Some((node, missing_bytes)) = error.missing_bytes()
            {
                let text = error.to_string();
                let refused = News::Refused {
                    epoch,
                    node,
                    missing_bytes,
                    text,
                };
                // Fails only when nobody keeps the ring any more.
                let _ = news.send(refused).await;
                return;
            }
            let failed = match raised {
                Ok(ring) => {
                    let mut watch = ring.watch();
                    if news
                        .send(News::Raised(epoch, Box::new(ring)))
                        .await
                        .is_err()
                    {
                        return;
                    }
                    let Some(loss) = watch.lost().await else {
                        return;
                    };
                    Event::Lost {
                        epoch,
                        suspect: loss.suspect,
                        accuser: loss.accuser,
                        text: loss.text,
                    }
                }
                Err(error) => Event::Lost {
                    epoch,
                    suspect: error.suspect(),
                    accuser: None,
                    text: error.to_string(),
                },
            };
            // Fails only when nobody keeps the ring any more.
            let _ = news.send(News::Failed(failed)).await;
        }))
    }
}
