//! Keeps a ring up: carries out what [`Recovery`] decides, and tells it what happens.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use mesh::NodeId;
use split::recovery::{Effect, Event, Recovery};
use split::ring::{Ring, RingPlan, Seat};
use split::spec::Precision;
use split::station::Station;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use super::super::stages::Word;
use super::making::{Made, Share, Subject};
use super::until;
use crate::membership::Membership;
use crate::node::Shared;

/// How long a worker keeps its stage when it hears nothing.
const LEASE: Duration = Duration::from_secs(30);

/// How long workers may take to load: they cut their slices first, from a slow disk.
const LOAD_MAX: Duration = Duration::from_secs(600);

/// How long a whole ring may take.
const RAISE_MAX: Duration = Duration::from_secs(660);

/// Streams wait so long for machines that would have room, before they are told.
const NOTHING_FITS_MAX: Duration = Duration::from_secs(8);

/// Shortest time between two looks at the members.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// News of rings that wait.
const NEWS_MAX: usize = 16;

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
}

/// What is under way.
#[derive(Default)]
struct Work {
    shares: BTreeMap<u32, Share>,
    raised: Option<(u32, Box<Ring>)>,
    tasks: BTreeMap<u32, AbortOnDropHandle<()>>,
    /// When to tell streams that nothing fits.
    down_at: Option<(Instant, String)>,
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
        let mut event = Some(Event::Begin);
        loop {
            if let Some(event) = event.take() {
                let mut effects = recovery.handle(event, began.elapsed());
                while !effects.is_empty() {
                    let mut follow = Vec::new();
                    for effect in effects {
                        let events = self.apply(effect, &mut work, &sender);
                        for event in events {
                            follow.extend(recovery.handle(event, began.elapsed()));
                        }
                    }
                    effects = follow;
                }
            }
            let wake = recovery.next_wake().map(|at| began + at);
            let down_at = work.down_at.as_ref().map(|(at, _)| *at);
            event = tokio::select! {
                Some(news) = news.recv() => self.heard(news, &mut work),
                () = until(wake) => Some(Event::Time),
                () = until(down_at) => {
                    if let Some((_, text)) = work.down_at.take() {
                        self.say(Word::Down(text));
                    }
                    None
                }
                () = sleep_until(looks) => {
                    looks = Instant::now() + LOOK_INTERVAL;
                    if !self.is_wanted() {
                        recovery.handle(Event::Stop, began.elapsed());
                        self.say(Word::Down("the model is no longer served here".into()));
                        return;
                    }
                    view.has_changed().unwrap_or(false).then(|| {
                        view.mark_unchanged();
                        Event::Changed
                    })
                }
            };
        }
    }

    /// Whether the model is still in the table, and the mesh is the same.
    fn is_wanted(&self) -> bool {
        self.shared.upgrade().is_some_and(|shared| {
            let present = shared.membership.borrow();
            let same = present
                .as_ref()
                .is_some_and(|present| Arc::ptr_eq(present, &self.membership));
            same && shared.models.is_split(self.id)
        })
    }

    fn heard(&self, news: News, work: &mut Work) -> Option<Event<NodeId>> {
        Some(match news {
            News::Raised(epoch, ring) => {
                work.raised = Some((epoch, ring));
                Event::Raised { epoch }
            }
            News::Failed(event) => event,
        })
    }

    /// Does it; gives what is known at once.
    fn apply(
        &mut self,
        effect: Effect<NodeId>,
        work: &mut Work,
        news: &mpsc::Sender<News>,
    ) -> Vec<Event<NodeId>> {
        match effect {
            Effect::Plan { epoch, without } => {
                self.made.epoch = self.made.epoch.max(epoch);
                let (view, me) = (self.membership.view(), self.me());
                let share = self.subject.share(&view, me, self.made.start, &without);
                return vec![match share {
                    Ok(share) => {
                        let workers = share.seats.iter().map(|seat| seat.node).collect();
                        work.shares.insert(epoch, share);
                        Event::Planned { epoch, workers }
                    }
                    Err(text) => Event::NoPlan { epoch, text },
                }];
            }
            Effect::Raise { epoch, .. } => {
                if let Some(share) = work.shares.get(&epoch) {
                    let task = self.raise(epoch, share.seats.clone(), news.clone());
                    work.tasks.insert(epoch, task);
                }
            }
            Effect::Release { epoch } => {
                work.tasks.remove(&epoch);
                work.shares.remove(&epoch);
                if work
                    .raised
                    .as_ref()
                    .is_some_and(|(raised, _)| *raised == epoch)
                {
                    work.raised = None;
                }
            }
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
                let at = Instant::now() + NOTHING_FITS_MAX;
                work.down_at.get_or_insert_with(|| (at, text.clone()));
                self.note(|models, id| models.split_waits(id, text));
            }
        }
        Vec::new()
    }

    fn resume(&mut self, epoch: u32, work: &mut Work) {
        let Some((_, ring)) = work.raised.take().filter(|(raised, _)| *raised == epoch) else {
            return;
        };
        work.down_at = None;
        self.say(Word::Ring(ring));
        if let Some(share) = work.shares.get(&epoch) {
            let view = self.membership.view();
            let layout = self
                .subject
                .layout(&view, self.me(), self.made.start, share);
            tracing::info!(model = self.subject.name, %layout, "a split model runs");
            let backend = Arc::clone(&self.made.backend);
            self.note(|models, id| models.split_runs(id, backend, layout));
        }
    }

    fn me(&self) -> NodeId {
        self.membership.mesh().node_id()
    }

    fn note(&self, note: impl FnOnce(&crate::models::Models, u64)) {
        if let Some(shared) = self.shared.upgrade() {
            note(&shared.models, self.id);
        }
    }

    fn say(&self, word: Word) {
        self.made.words.say(word);
    }

    fn raise(
        &self,
        epoch: u32,
        workers: Vec<Seat>,
        news: mpsc::Sender<News>,
    ) -> AbortOnDropHandle<()> {
        let room = &self.made.room;
        let plan = RingPlan {
            ring: self.made.ring,
            epoch,
            model: self.subject.fingerprint,
            workers,
            width: self.subject.width,
            kv_tokens: room.kv_tokens,
            sequences: room.sequences,
            rows_max: room.rows_max,
            precision: Precision::F32,
            lease: LEASE,
            load_max: LOAD_MAX,
        };
        let station = self.station.clone();
        let name = self.subject.name.clone();
        AbortOnDropHandle::new(tokio::spawn(async move {
            let mut progress = |node: NodeId, permille: u16| {
                tracing::debug!(
                    model = name,
                    node = node.short(),
                    permille,
                    "a worker loads"
                );
            };
            let raised = station.raise(plan, &mut progress).await;
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
