//! Owns the running node: one task that holds all state, takes what happens, asks `proto` and
//! `admission` what follows, and does it.

mod authority;
mod bookkeeper;
mod bulk;
mod connections;
mod dial;
mod effects;
mod entrance;
mod handshakes;
mod input;
mod penalties;
mod rates;
mod upkeep;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use iroh::Endpoint;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Duration, MissedTickBehavior, interval, sleep_until, timeout};

use self::authority::{KnownChains, NodeAuthority};
use self::bookkeeper::Bookkeeper;
use self::connections::Peer;
pub(crate) use self::dial::DIALS_MAX;
use self::dial::Dial;
use self::handshakes::Handshakes;
pub(crate) use self::handshakes::{CROWDED, Place};
pub(crate) use self::input::{Command, Input, OpenPeer};
use self::penalties::Penalties;
use self::rates::{Complaints, Joins};
use super::bulk::BulkSettings;
use super::clock::Clock;
use super::stream::IncomingStream;
use super::{MeshError, Settings, unix_ms};
use crate::admission::{Authority, Invitations, Refusal, Revocation, Trust};
use crate::announcement::NodeInfo;
use crate::identity::MeshFiles;
use crate::proto::{Config, Event, State, View};
use crate::{Addresses, NodeId};

/// What happens, waiting for the actor. Readers of connections wait when it is full, which stops
/// their peers.
const INPUTS_MAX: usize = 1_024;

/// Inputs that are taken before the view is made anew: a burst of news costs one view.
const INPUTS_BATCH: usize = 64;

/// Commands of this process that wait.
pub(crate) const COMMANDS_MAX: usize = 256;

/// How often slow changes are looked for: addresses, round trips, unused connections.
const UPKEEP: Duration = Duration::from_secs(1);

/// How long a stop may take: last messages, then the endpoint's own goodbye.
const STOP_MAX: Duration = Duration::from_secs(3);

/// Whether this node is still wanted, as far as it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberStatus {
    /// As far as it knows.
    Member,
    /// A member refused it for this reason, and showed nothing that proves it.
    Refused {
        /// Who.
        by: NodeId,
        /// Why.
        reason: Refusal,
    },
    /// It saw the revocation itself, or its membership has ended by its own clock.
    Expelled(Refusal),
}

/// What a node starts with.
pub(crate) struct Start {
    pub(crate) endpoint: Endpoint,
    pub(crate) settings: Settings,
    pub(crate) authority: Authority,
    pub(crate) trust: Trust,
    pub(crate) name: Option<String>,
    pub(crate) files: Option<MeshFiles>,
    pub(crate) book: Invitations,
    pub(crate) bootstrap: Vec<(NodeId, Addresses)>,
    pub(crate) streams: mpsc::Sender<IncomingStream>,
}

/// The channels to a running actor.
pub(crate) struct Running {
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) view: watch::Receiver<Arc<View>>,
    pub(crate) status: watch::Receiver<MemberStatus>,
}

/// The running node. See the module's documentation.
pub(crate) struct Actor {
    endpoint: Endpoint,
    settings: Settings,
    me: NodeId,
    /// Tells this run of the program from earlier ones.
    instance: u64,
    authority: Authority,
    name: Option<String>,
    files: Option<MeshFiles>,
    book: Invitations,
    bookkeeper: Bookkeeper,
    /// Shared with `proto`'s authority, which adds revocations.
    trust: Arc<watch::Sender<Trust>>,
    chains: KnownChains,
    proto: State,
    clock: Clock,
    wake_at_ms: u64,
    events: VecDeque<Event>,
    peers: BTreeMap<NodeId, Peer>,
    dials: BTreeMap<NodeId, Dial>,
    next_serial: u64,
    /// Ways to members, from tickets, hellos and files. Announcements come before.
    addresses: BTreeMap<NodeId, Addresses>,
    penalties: Penalties,
    joins: Joins,
    complaints: Complaints,
    handshakes: Handshakes,
    bulk: BulkSettings,
    /// What this node says of itself, with its addresses.
    info: NodeInfo,
    own_addresses: Addresses,
    kept_bootstrap: Vec<(NodeId, Addresses)>,
    kept_at_ms: u64,
    tasks: JoinSet<()>,
    inputs: mpsc::Receiver<Input>,
    inputs_sender: mpsc::Sender<Input>,
    commands: mpsc::Receiver<Command>,
    streams: mpsc::Sender<IncomingStream>,
    view: watch::Sender<Arc<View>>,
    view_changed: bool,
    status: watch::Sender<MemberStatus>,
    left: bool,
    revocations_changed: bool,
    upkeeps: u64,
}

impl Actor {
    /// An actor that does nothing until it [runs](Self::run), and the channels to it.
    pub(crate) fn new(start: Start) -> (Self, Running) {
        let me = start.authority.node();
        let (inputs_sender, inputs) = mpsc::channel(INPUTS_MAX);
        let (commands_sender, commands) = mpsc::channel(COMMANDS_MAX);
        let trust = Arc::new(watch::Sender::new(start.trust));
        let chains = KnownChains::default();
        let mut proto = State::new(
            Config {
                me,
                mesh: start.authority.membership.mesh,
                role: start.settings.role,
                unix_ms: unix_ms(),
                seed: rand::random(),
            },
            Box::new(NodeAuthority::new(
                start.authority.key.clone(),
                trust.clone(),
                chains.clone(),
            )),
        );
        let bulk = BulkSettings::new(&start.endpoint, start.settings.network.idle);
        let (view, view_receiver) = watch::channel(proto.view());
        let (status, status_receiver) = watch::channel(MemberStatus::Member);
        let actor = Self {
            me,
            instance: rand::random(),
            own_addresses: Addresses::default(),
            info: start.settings.info.clone(),
            endpoint: start.endpoint,
            settings: start.settings,
            authority: start.authority,
            name: start.name,
            bookkeeper: Bookkeeper::new(start.files.clone()),
            files: start.files,
            book: start.book,
            trust,
            chains,
            proto,
            clock: Clock::start(),
            wake_at_ms: 0,
            events: VecDeque::new(),
            peers: BTreeMap::new(),
            dials: BTreeMap::new(),
            next_serial: 0,
            addresses: start.bootstrap.into_iter().collect(),
            penalties: Penalties::default(),
            joins: Joins::new(),
            complaints: Complaints::new(),
            handshakes: Handshakes::default(),
            bulk,
            kept_bootstrap: Vec::new(),
            kept_at_ms: 0,
            tasks: JoinSet::new(),
            inputs,
            inputs_sender,
            commands,
            streams: start.streams,
            view,
            view_changed: false,
            status,
            left: false,
            revocations_changed: false,
            upkeeps: 0,
        };
        let running = Running {
            commands: commands_sender,
            view: view_receiver,
            status: status_receiver,
        };
        (actor, running)
    }

    /// Runs until the mesh is left or every handle is gone, and has closed everything when it ends.
    pub(crate) async fn run(mut self) {
        self.begin();
        let endpoint = self.endpoint.clone();
        let mut upkeep = interval(UPKEEP);
        upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(INPUTS_BATCH);
        let done = loop {
            let wake = self.clock.timer(self.wake_at_ms);
            tokio::select! {
                _ = self.inputs.recv_many(&mut batch, INPUTS_BATCH) => {
                    for input in batch.drain(..) {
                        self.input(input).await;
                    }
                }
                command = self.commands.recv() => match command {
                    Some(Command::Leave { done }) => break Some(done),
                    Some(command) => self.command(command).await,
                    None => break None,
                },
                incoming = endpoint.accept() => match incoming {
                    Some(incoming) => self.accept(incoming),
                    None => break None,
                },
                Some(_) = self.tasks.join_next() => {}
                () = sleep_until(wake) => self.event(Event::Tick),
                _ = upkeep.tick() => self.upkeep().await,
            }
            self.publish_view();
        };
        self.stop().await;
        if let Some(done) = done {
            // Fails only if nobody waits for it.
            let _ = done.send(());
        }
    }

    fn begin(&mut self) {
        self.refresh_addresses();
        let bootstrap = self.addresses.keys().copied().collect();
        let revocations = self
            .trust
            .borrow()
            .revocations()
            .iter()
            .map(Revocation::to_bytes)
            .collect();
        self.event(Event::Started {
            bootstrap,
            revocations,
            info: self.info.clone(),
        });
        self.publish_view();
    }

    async fn stop(mut self) {
        self.event(Event::Leave);
        self.keep_bootstrap().await;
        let waiting = std::mem::take(&mut self.dials);
        for dial in waiting.into_values() {
            dial.abort(&MeshError::Stopped);
        }
        // Without its outbox a connection says goodbye.
        let peers = std::mem::take(&mut self.peers);
        drop(peers);
        drop(self.inputs);
        let tasks = &mut self.tasks;
        let goodbye = timeout(STOP_MAX, async {
            while tasks.join_next().await.is_some() {}
        });
        if goodbye.await.is_err() {
            tracing::debug!("some connections were cut at the stop");
            self.tasks.shutdown().await;
        }
        if timeout(STOP_MAX, self.endpoint.close()).await.is_err() {
            tracing::debug!("the endpoint took too long to close");
        }
    }

    /// Tells `proto` what happened and does what follows, until nothing more does.
    fn event(&mut self, event: Event) {
        self.events.push_back(event);
        while let Some(event) = self.events.pop_front() {
            let now_ms = self.now_ms();
            for effect in self.proto.handle(event, now_ms) {
                self.apply(effect);
            }
        }
    }

    fn publish_view(&mut self) {
        if std::mem::take(&mut self.view_changed) {
            self.view.send_replace(self.proto.view());
        }
    }

    /// Milliseconds since the start, which never go back and go on in suspension.
    fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }
}
