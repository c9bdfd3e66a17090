//! The task that owns the leases of this machine, and layers that no session uses at the moment.

use std::collections::{BTreeMap, VecDeque};

use gguf::Fingerprint;
use mesh::NodeId;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{Body, Granted};
use crate::fault::Refusal;
use crate::lease::{Ask, Effect, Event, LEASE_MAX, Table};
use crate::spec::{RingId, StageSpec};

/// What sessions want of the keeper.
pub(super) enum Command {
    Ask {
        ask: Ask<NodeId>,
        spec: StageSpec,
        /// For when the session is over.
        back: mpsc::OwnedPermit<Command>,
        granted: oneshot::Sender<Result<Granted, Refusal>>,
    },
    Renew(RingId, u32),
    Release(RingId, u32),
    /// A session is over. Without layers there is nothing left of its stage.
    Back {
        ring: RingId,
        epoch: u32,
        body: Option<Body>,
    },
    /// Nobody comes back for layers of this model that no session uses: the model has another host.
    Free(Fingerprint),
    Budget(u64),
    Usage(oneshot::Sender<Usage>),
}

/// What is leased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Rings that have something here.
    pub rings: usize,
    /// Bytes that they take.
    pub used_bytes: u64,
    /// Bytes that nobody has leased.
    pub free_bytes: u64,
}

enum State {
    Asking {
        back: mpsc::OwnedPermit<Command>,
        granted: oneshot::Sender<Result<Granted, Refusal>>,
    },
    Running(CancellationToken),
    /// The session is over, the lease is not: the host may come back with a newer epoch.
    Parked(Body),
    /// The lease is over, the session is not.
    Ending,
}

struct Stage {
    spec: StageSpec,
    state: State,
}

impl Stage {
    fn is_parked(&self) -> bool {
        matches!(self.state, State::Parked(_))
    }
}

struct Keeper {
    table: Table<NodeId>,
    stages: BTreeMap<(RingId, u32), Stage>,
    /// Layers of a stage that has just ended, for the next one.
    spare: Option<(StageSpec, Body)>,
    began: Instant,
}

pub(super) async fn run(
    mut commands: mpsc::Receiver<Command>,
    budget_bytes: u64,
    stop: CancellationToken,
) {
    let mut keeper = Keeper {
        table: Table::new(budget_bytes),
        stages: BTreeMap::new(),
        spare: None,
        began: Instant::now(),
    };
    loop {
        let end = keeper.table.next_end().unwrap_or(LEASE_MAX + keeper.now());
        let events = tokio::select! {
            () = stop.cancelled() => break,
            () = sleep_until(keeper.began + end) => vec![Event::Time],
            command = commands.recv() => match command {
                None => break,
                Some(command) => keeper.command(command).await,
            },
        };
        keeper.handle(events).await;
    }
    commands.close();
    // Sessions end by `stop` themselves; layers go with the keeper, off the runtime's threads.
    let _ = tokio::task::spawn_blocking(move || drop(keeper)).await;
}

impl Keeper {
    fn now(&self) -> std::time::Duration {
        self.began.elapsed()
    }

    async fn command(&mut self, command: Command) -> Vec<Event<NodeId>> {
        match command {
            Command::Ask {
                ask,
                spec,
                back,
                granted,
            } => {
                let key = (ask.ring, ask.epoch);
                if self.stages.contains_key(&key) {
                    let refusal = Refusal::OldEpoch { epoch: ask.epoch };
                    // Nobody hears it if the session has ended.
                    let _ = granted.send(Err(refusal));
                    return Vec::new();
                }
                // A model has one host: what another one has left here is this one's now.
                let mut events = self.orphans(spec.model, Some(ask.ring));
                let state = State::Asking { back, granted };
                self.stages.insert(key, Stage { spec, state });
                events.push(Event::Ask(ask));
                events
            }
            Command::Renew(ring, epoch) => vec![Event::Renew(ring, epoch)],
            Command::Release(ring, epoch) => vec![Event::Release(ring, epoch)],
            Command::Back { ring, epoch, body } => {
                Vec::from_iter(self.back(ring, epoch, body).await)
            }
            Command::Free(model) => self.orphans(model, None),
            Command::Budget(bytes) => {
                self.table.set_budget(bytes);
                Vec::new()
            }
            Command::Usage(sender) => {
                let _ = sender.send(Usage {
                    rings: self.table.rings(),
                    used_bytes: self.table.used_bytes(),
                    free_bytes: self.table.free_bytes(),
                });
                Vec::new()
            }
        }
    }

    /// Ends the stages of a model that no session uses, but those of the ring `but`.
    fn orphans(&self, model: Fingerprint, but: Option<RingId>) -> Vec<Event<NodeId>> {
        let stages = self.stages.iter().filter(|((ring, _), stage)| {
            stage.spec.model == model && stage.is_parked() && Some(*ring) != but
        });
        let keys = stages.map(|((ring, epoch), _)| Event::Release(*ring, *epoch));
        keys.collect()
    }

    async fn back(
        &mut self,
        ring: RingId,
        epoch: u32,
        body: Option<Body>,
    ) -> Option<Event<NodeId>> {
        let stage = self.stages.get_mut(&(ring, epoch))?;
        let goes_on = matches!(stage.state, State::Running(_));
        match body {
            Some(body) if goes_on => {
                stage.state = State::Parked(body);
                return None;
            }
            Some(body) => {
                let spec = self.stages.remove(&(ring, epoch))?.spec;
                self.retire(spec, body).await;
            }
            None => {
                self.stages.remove(&(ring, epoch));
            }
        }
        Some(Event::Gone(ring, epoch))
    }

    async fn handle(&mut self, events: Vec<Event<NodeId>>) {
        let mut events = VecDeque::from(events);
        // Each event ends or begins a stage, of which there are few. What follows from one comes before
        // the next: memory is free by then.
        while let Some(event) = events.pop_front() {
            for effect in self.table.handle(event, self.now()) {
                let follows = match effect {
                    Effect::Grant(ring, epoch) => self.grant(ring, epoch),
                    Effect::Refuse(ring, epoch, refusal) => {
                        self.refuse(ring, epoch, refusal);
                        None
                    }
                    Effect::End(ring, epoch, _) => self.end(ring, epoch).await,
                };
                if let Some(event) = follows {
                    events.push_front(event);
                }
            }
        }
        if let Some((_, body)) = self.spare.take() {
            free(body).await;
        }
    }

    fn grant(&mut self, ring: RingId, epoch: u32) -> Option<Event<NodeId>> {
        let stage = self.stages.remove(&(ring, epoch))?;
        let State::Asking { back, granted } = stage.state else {
            return None;
        };
        let spare = self.spare.take_if(|(spec, _)| *spec == stage.spec);
        let end = CancellationToken::new();
        let state = State::Running(end.clone());
        let spec = stage.spec;
        self.stages.insert((ring, epoch), Stage { spec, state });
        // Should the session have ended, this comes straight back.
        let _ = granted.send(Ok(Granted {
            ring,
            epoch,
            end,
            body: spare.map(|(_, body)| body),
            back: Some(back),
        }));
        None
    }

    fn refuse(&mut self, ring: RingId, epoch: u32, refusal: Refusal) {
        if let Some(Stage {
            state: State::Asking { granted, .. },
            ..
        }) = self.stages.remove(&(ring, epoch))
        {
            let _ = granted.send(Err(refusal));
        }
    }

    async fn end(&mut self, ring: RingId, epoch: u32) -> Option<Event<NodeId>> {
        let stage = self.stages.get_mut(&(ring, epoch))?;
        match std::mem::replace(&mut stage.state, State::Ending) {
            State::Running(end) => {
                end.cancel();
                None
            }
            State::Parked(body) => {
                let spec = self.stages.remove(&(ring, epoch))?.spec;
                self.retire(spec, body).await;
                Some(Event::Gone(ring, epoch))
            }
            state => {
                stage.state = state;
                None
            }
        }
    }

    /// Keeps layers for a newer epoch, or another host of the model, that waits for the same ones; frees
    /// them else.
    async fn retire(&mut self, spec: StageSpec, body: Body) {
        let is_wanted = self.spare.is_none() && self.is_wanted(&spec);
        match is_wanted {
            true => self.spare = Some((spec, body)),
            false => free(body).await,
        }
    }

    /// Whether such layers are waited for.
    fn is_wanted(&self, spec: &StageSpec) -> bool {
        let mut stages = self.stages.values();
        stages.any(|s| s.spec == *spec && matches!(s.state, State::Asking { .. }))
    }
}

/// Frees layers where that may take its time. Their memory counts as used until then.
async fn free(body: Body) {
    // Fails only if dropping them panics, and then they are gone too.
    let _ = tokio::task::spawn_blocking(move || drop(body)).await;
}
