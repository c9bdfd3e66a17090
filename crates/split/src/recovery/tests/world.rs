//! A host, its workers with their real tables of leases, streams, and everything that may go wrong, on a
//! virtual clock. Same seed, same day.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::lease::{self, LEASE_MAX, Table};
use crate::spec::RingId;

/// Days that are simulated.
const SEEDS: u64 = 3_000;
/// Virtual seconds with faults, and without, until all must be well. About as many machines go with a word as
/// without one.
const BAD: Duration = Duration::from_secs(1_200);
const GOOD: Duration = Duration::from_secs(600);
/// Another host's ring.
pub(super) const RIVAL: RingId = RingId([9; 16]);
pub(super) const LEASE: Duration = Duration::from_secs(30);
/// What a stage takes, and a worker has: room for one stage or two.
pub(super) const STAGE_BYTES: u64 = 10;
const BUDGETS: [u64; 2] = [15, 25];
/// Seconds of a token: at its best, and what each slow worker adds.
const TOKEN_S: f64 = 0.7;
const SLOW_S: f64 = 2.0;
/// Rings need so many workers.
const WORKERS: usize = 2;
/// Tokens of a stream.
const TOKENS: u32 = 40;

/// What makes days bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weather {
    /// Machines die and are used by others, and there is room for one stage on each.
    Deaths,
    /// They also leave with a word, and are slow for a while; some have room for two stages.
    Moves,
}

/// Small, fast and seeded: SplitMix64.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub(super) fn one_in(&mut self, odds: u64) -> bool {
        self.below(odds) == 0
    }

    pub(super) fn millis(&mut self, most: u64) -> Duration {
        Duration::from_millis(self.below(most))
    }
}

/// What is under way.
#[derive(Debug, Clone)]
pub(super) enum Later {
    ToHost(Event<u8>),
    ToWorker(u8, lease::Event<u8>),
    /// The stages of an epoch are connected, or not.
    Connect(u32, Vec<u8>),
    /// One token for each stream, of one epoch.
    Step(u32),
    Renew(u32),
    Kill(u8),
    Revive(u8),
    /// Another host takes a worker's memory for a while.
    Rival(u8),
    Joins,
    /// A worker is about to stop, and stops.
    Leave(u8),
    End(u8),
    /// A worker becomes slow, or fast again.
    Slows(u8),
    /// The host looks at what was measured.
    Look,
}

pub(super) struct Worker {
    pub(super) table: Table<u8>,
    pub(super) is_alive: bool,
    pub(super) is_leaving: bool,
    is_slow: bool,
    /// Epochs of our ring that are loaded or being loaded here.
    pub(super) granted: BTreeSet<u32>,
    pub(super) refused: BTreeSet<u32>,
    pub(super) rivals: u8,
}

#[derive(Debug, Default)]
struct Stream {
    tokens: Vec<u32>,
    failed: Option<String>,
    /// It failed because too few machines were there.
    is_hopeless: bool,
    ends: u32,
}

pub(super) struct World {
    pub(super) dice: Dice,
    pub(super) now: Duration,
    pub(super) order: u64,
    later: BTreeMap<(Duration, u64), Later>,
    recovery: Recovery<u8>,
    pub(super) workers: Vec<Worker>,
    streams: Vec<Stream>,
    /// The ring that streams run on.
    running: Option<u32>,
    /// Rings and attempts that were not released.
    open: BTreeMap<u32, Vec<u8>>,
    suspended_since: Option<Duration>,
    /// Since when each plan has come to nothing.
    nothing_fits_since: Option<Duration>,
    resumes: Vec<u32>,
    /// The number of each epoch's ring, and of the one that ran last.
    rings: BTreeMap<u32, RingId>,
    ring: RingId,
    advantage: Advantage,
    /// When a move was begun for the sake of speed.
    moves: Vec<Duration>,
    /// Rings that took over from one that ran, and times that streams waited.
    takeovers: usize,
    suspends: usize,
    pub(super) is_bad: bool,
    weather: Weather,
    /// Kept when a day is looked at again.
    log: Option<Vec<String>>,
}

impl World {
    fn new(seed: u64, weather: Weather) -> Self {
        let mut dice = Dice(seed);
        let budget = match weather {
            Weather::Deaths => BUDGETS[0],
            Weather::Moves => BUDGETS[dice.below(2) as usize],
        };
        let worker = || Worker {
            table: Table::new(budget),
            is_alive: true,
            is_leaving: false,
            is_slow: false,
            granted: BTreeSet::new(),
            refused: BTreeSet::new(),
            rivals: 0,
        };
        let workers = (0..WORKERS as u64 + dice.below(4))
            .map(|_| worker())
            .collect();
        Self {
            dice,
            now: Duration::ZERO,
            order: 0,
            later: BTreeMap::new(),
            recovery: Recovery::new(0, Duration::from_secs(120)),
            workers,
            streams: Vec::new(),
            running: None,
            open: BTreeMap::new(),
            suspended_since: Some(Duration::ZERO),
            nothing_fits_since: None,
            resumes: Vec::new(),
            rings: BTreeMap::new(),
            ring: RingId([1; 16]),
            advantage: Advantage::default(),
            moves: Vec::new(),
            takeovers: 0,
            suspends: 0,
            is_bad: true,
            weather,
            log: None,
        }
    }

    pub(super) fn after(&mut self, pause: Duration, what: Later) {
        self.order += 1;
        self.later.insert((self.now + pause, self.order), what);
    }

    fn day(&mut self) {
        self.host(Event::Begin);
        self.after(Duration::ZERO, Later::Joins);
        for worker in 0..self.workers.len() as u8 {
            let pause = self.dice.millis(300_000);
            self.after(pause, Later::Kill(worker));
            let pause = self.dice.millis(300_000);
            self.after(pause, Later::Rival(worker));
            if self.weather == Weather::Deaths {
                continue;
            }
            let pause = self.dice.millis(1_000_000);
            self.after(pause, Later::Leave(worker));
            let pause = self.dice.millis(400_000);
            self.after(pause, Later::Slows(worker));
        }
        if self.weather == Weather::Moves {
            self.after(Duration::ZERO, Later::Look);
        }
        self.until(BAD);
        self.is_bad = false;
        let is_well = |world: &Self| {
            world.running.is_some() && world.streams.iter().all(|stream| stream.ends > 0)
        };
        while !is_well(self) && self.now < BAD + GOOD {
            self.until(self.now + Duration::from_secs(10));
        }
        for stream in &self.streams {
            assert_eq!(stream.ends, 1, "a stream is lost: {stream:?}");
        }
        let is_running = matches!(self.recovery.state(), State::Running { .. });
        assert!(is_running, "{:?}", self.recovery.state());
        self.host(Event::Stop);
        self.until(self.now + LEASE_MAX + Duration::from_secs(60));
        assert!(self.open.is_empty(), "not released: {:?}", self.open);
        for worker in &self.workers {
            assert_eq!(worker.table.rings(), 0, "a lease leaks");
            assert!(worker.granted.is_empty());
        }
    }

    fn until(&mut self, end: Duration) {
        loop {
            let next = self.later.first_key_value().map(|(key, _)| key.0);
            let wake = self.recovery.next_wake();
            let leases = self.workers.iter().filter(|w| w.is_alive);
            let leases = leases.filter_map(|w| w.table.next_end()).min();
            let Some(at) = [next, wake, leases].into_iter().flatten().min() else {
                break;
            };
            if at > end {
                break;
            }
            self.now = self.now.max(at);
            if wake.is_some_and(|wake| wake <= self.now) {
                self.host(Event::Time);
            }
            for worker in 0..self.workers.len() as u8 {
                if self.workers[usize::from(worker)].is_alive {
                    self.worker(worker, lease::Event::Time);
                }
            }
            if next.is_some_and(|next| next <= self.now)
                && let Some((_, later)) = self.later.pop_first()
            {
                self.happen(later);
            }
        }
        self.now = self.now.max(end);
    }

    fn happen(&mut self, later: Later) {
        match later {
            Later::ToHost(event) => self.host(event),
            Later::ToWorker(worker, event) => {
                if self.workers[usize::from(worker)].is_alive {
                    self.worker(worker, event);
                }
            }
            Later::Connect(epoch, workers) => self.connect(epoch, &workers),
            Later::Step(epoch) => self.step(epoch),
            Later::Renew(epoch) => self.renew(epoch),
            Later::Kill(worker) => self.kill(worker),
            Later::Revive(worker) => {
                self.workers[usize::from(worker)].is_alive = true;
                self.workers[usize::from(worker)].is_leaving = false;
                self.host(Event::Returned(worker));
            }
            Later::Rival(worker) => self.rival(worker),
            Later::Leave(worker) => self.leave(worker),
            Later::End(worker) => {
                self.end(worker);
            }
            Later::Slows(worker) => {
                let slow = &mut self.workers[usize::from(worker)].is_slow;
                *slow = self.is_bad && !*slow;
                if self.is_bad {
                    let pause = self.dice.millis(400_000);
                    self.after(pause, Later::Slows(worker));
                }
            }
            Later::Look => self.look(),
            Later::Joins => {
                if self.is_bad {
                    self.streams.push(Stream::default());
                    if self.running.is_none() {
                        self.suspended_since.get_or_insert(self.now);
                        self.host(Event::Waits);
                    }
                    let pause = self.dice.millis(60_000);
                    self.after(pause, Later::Joins);
                }
            }
        }
    }

    fn host(&mut self, event: Event<u8>) {
        if let Some(log) = &mut self.log {
            log.push(format!("{:?} host: {event:?}", self.now));
        }
        if let State::Planning { epoch: awaited } = *self.recovery.state() {
            match &event {
                Event::NoPlan { epoch, .. } if *epoch == awaited => {
                    self.nothing_fits_since.get_or_insert(self.now);
                }
                Event::Planned { epoch, .. } if *epoch == awaited => {
                    self.nothing_fits_since = None;
                }
                _ => {}
            }
        }
        for effect in self.recovery.handle(event, self.now) {
            if let Some(log) = &mut self.log {
                log.push(format!("    {effect:?}"));
            }
            self.effect(effect);
        }
    }

    fn effect(&mut self, effect: Effect<u8>) {
        match effect {
            Effect::Plan {
                epoch,
                without,
                is_move,
            } => {
                assert_eq!(is_move, self.running.is_some());
                self.plan(epoch, &without, is_move);
            }
            Effect::Raise {
                epoch,
                workers,
                beside,
            } => {
                assert!(self.open.insert(epoch, workers.clone()).is_none());
                assert_eq!(beside, self.running.is_some());
                let mut ring = self.ring;
                if beside {
                    ring.0[..4].copy_from_slice(&epoch.to_be_bytes());
                }
                self.rings.insert(epoch, ring);
                for &worker in &workers {
                    let ask = lease::Event::Ask(lease::Ask {
                        host: 0,
                        ring,
                        epoch,
                        bytes: STAGE_BYTES,
                        lease: LEASE,
                    });
                    let pause = self.dice.millis(500);
                    self.after(pause, Later::ToWorker(worker, ask));
                }
                self.after(LEASE / 3, Later::Renew(epoch));
                let pause = Duration::from_secs(1) + self.dice.millis(20_000);
                self.after(pause, Later::Connect(epoch, workers));
            }
            Effect::Release { epoch } => {
                let workers = self.open.remove(&epoch).unwrap_or_default();
                if self.running == Some(epoch) {
                    self.running = None;
                }
                // A message may be lost; then the lease ends by itself.
                for worker in workers {
                    if !self.dice.one_in(3) {
                        let pause = self.dice.millis(500);
                        let release = lease::Event::Release(self.rings[&epoch], epoch);
                        self.after(pause, Later::ToWorker(worker, release));
                    }
                }
            }
            Effect::Suspend { .. } => {
                assert_eq!(self.running, None, "a ring is let go before streams wait");
                self.suspended_since = Some(self.now);
                self.suspends += 1;
            }
            Effect::Resume { epoch } => {
                self.ring = self.rings[&epoch];
                self.takeovers += usize::from(self.running.is_some());
                self.advantage.reset();
                assert!(self.open.contains_key(&epoch), "a ring that was let go");
                assert!(self.resumes.last().is_none_or(|last| *last < epoch));
                self.resumes.push(epoch);
                self.running = Some(epoch);
                self.suspended_since = None;
                self.after(Duration::from_millis(200), Later::Step(epoch));
            }
            Effect::Fail { text } => {
                let since = self.suspended_since.take();
                let is_over = *self.recovery.state() == State::Stopped;
                let nothing_fits = self.nothing_fits_since;
                let is_hopeless =
                    nothing_fits.is_some_and(|since| self.now >= since + NOTHING_FITS_MAX);
                if let Some(since) = since.filter(|_| !is_over) {
                    let is_late = self.now >= since + PATIENCE;
                    assert!(is_hopeless || is_late, "streams fail too early");
                }
                for stream in self.streams.iter_mut().filter(|s| s.ends == 0) {
                    stream.failed = Some(text.clone());
                    stream.is_hopeless = is_hopeless;
                    stream.ends += 1;
                }
            }
            Effect::Waiting { .. } => {
                // Whoever comes later is told at the same time.
                self.suspended_since.get_or_insert(self.now);
            }
        }
    }

    fn plan(&mut self, epoch: u32, without: &BTreeSet<u8>, is_move: bool) {
        let beside = |worker: &Worker| worker.table.free_bytes() >= STAGE_BYTES;
        // What the ring itself has there is free when it goes.
        let alone = |worker: &Worker| worker.rivals == 0;
        let mut chosen = match is_move {
            true => self.choose(without, beside),
            false => Vec::new(),
        };
        let is_beside = chosen.len() == WORKERS;
        if !is_beside {
            chosen = self.choose(without, alone);
        }
        let event = match chosen.len() {
            WORKERS => Event::Planned {
                epoch,
                workers: chosen,
                beside: is_beside,
            },
            _ => Event::NoPlan {
                epoch,
                text: "too few machines".into(),
            },
        };
        if self.is_bad && self.dice.one_in(30) {
            return;
        }
        let pause = self.dice.millis(2_000);
        self.after(pause, Later::ToHost(event));
    }

    fn choose(&mut self, without: &BTreeSet<u8>, has_room: impl Fn(&Worker) -> bool) -> Vec<u8> {
        let numbers = 0..self.workers.len() as u8;
        // The planner does not know at once who is dead.
        let mut chosen: Vec<u8> = numbers
            .filter(|number| !without.contains(number))
            .filter(|number| has_room(&self.workers[usize::from(*number)]))
            .collect();
        while chosen.len() > WORKERS {
            let slow = |number: &u8| self.workers[usize::from(*number)].is_slow;
            let out = chosen.iter().position(slow);
            let out = out.unwrap_or_else(|| self.dice.below(chosen.len() as u64) as usize);
            chosen.remove(out);
        }
        chosen
    }

    /// Seconds of a token with these workers.
    fn token_s(&self, workers: &[u8]) -> f64 {
        let slow = workers
            .iter()
            .filter(|w| self.workers[usize::from(**w)].is_slow);
        TOKEN_S + SLOW_S * slow.count() as f64
    }

    fn look(&mut self) {
        if self.is_bad {
            self.after(Duration::from_secs(2), Later::Look);
        }
        let Some(running) = self.running else {
            return;
        };
        let free = |worker: &Worker| worker.is_alive && worker.rivals == 0 && !worker.is_leaving;
        let best = self.choose(&BTreeSet::new(), free);
        let sight = (best.len() == WORKERS).then(|| Sight {
            running_s: self.token_s(&self.open[&running]),
            best_s: self.token_s(&best),
            pause: Duration::from_secs(20),
            is_active: self.streams.iter().any(|stream| stream.ends == 0),
        });
        let pays = self.advantage.observe(sight, self.now);
        // Now and then without a reason.
        if !pays && !self.dice.one_in(200) {
            return;
        }
        let was_moving = self.recovery.is_moving();
        self.host(Event::Better);
        if self.recovery.is_moving() && !was_moving {
            self.moves.push(self.now);
        }
    }

    fn connect(&mut self, epoch: u32, workers: &[u8]) {
        let blame = |suspect: Option<u8>, accuser: Option<u8>| Event::Lost {
            epoch,
            suspect,
            accuser,
            text: "not raised".into(),
        };
        let is_ready = |worker: &u8| {
            let worker = &self.workers[usize::from(*worker)];
            worker.is_alive && worker.granted.contains(&epoch)
        };
        let missing = workers.iter().find(|worker| !is_ready(worker)).copied();
        let event = match missing {
            Some(missing) => blame(Some(missing), None),
            None if self.is_bad && self.dice.one_in(20) => blame(None, None),
            // Somebody lies.
            None if self.is_bad && self.dice.one_in(20) => {
                blame(Some(workers[0]), Some(workers[1]))
            }
            None if self.is_bad && self.dice.one_in(20) => blame(None, Some(workers[0])),
            // Nothing is ever heard.
            None if self.is_bad && self.dice.one_in(50) => return,
            None => Event::Raised { epoch },
        };
        self.host(event);
        // News comes twice, or late.
        if self.is_bad && self.dice.one_in(10) {
            let pause = self.dice.millis(90_000);
            self.after(pause, Later::ToHost(Event::Raised { epoch }));
        }
    }

    fn step(&mut self, epoch: u32) {
        if self.running != Some(epoch) {
            // A step of an old ring.
            return;
        }
        let workers = self.open[&epoch].clone();
        let mut dead = workers.iter().filter(|w| {
            let worker = &self.workers[usize::from(**w)];
            !worker.is_alive || !worker.granted.contains(&epoch)
        });
        let dead = dead.next().copied();
        if dead.is_some() || (self.is_bad && self.dice.one_in(300)) {
            let accuser = workers
                .iter()
                .copied()
                .find(|w| self.dice.one_in(4) && Some(*w) != dead);
            let lost = Event::Lost {
                epoch,
                suspect: dead,
                accuser,
                text: "lost".into(),
            };
            let pause = self.dice.millis(6_000);
            self.after(pause, Later::ToHost(lost.clone()));
            if self.dice.one_in(3) {
                let pause = self.dice.millis(60_000);
                self.after(pause, Later::ToHost(lost));
            }
            return;
        }
        for stream in self.streams.iter_mut().filter(|s| s.ends == 0) {
            let token = stream.tokens.len() as u32;
            stream.tokens.push(token);
            if stream.tokens.len() as u32 == TOKENS {
                stream.ends += 1;
            }
        }
        let pause = Duration::from_secs_f64(self.token_s(&workers));
        self.after(pause, Later::Step(epoch));
    }

    fn renew(&mut self, epoch: u32) {
        if let Some(workers) = self.open.get(&epoch).cloned() {
            for worker in workers {
                self.after(
                    Duration::from_millis(10),
                    Later::ToWorker(worker, lease::Event::Renew(self.rings[&epoch], epoch)),
                );
            }
            self.after(LEASE / 3, Later::Renew(epoch));
        }
    }
}

/// The end of a day that went wrong.
fn show(seed: u64, weather: Weather) {
    let mut world = World::new(seed, weather);
    world.log = Some(Vec::new());
    let day = std::panic::AssertUnwindSafe(|| world.day());
    let _ = std::panic::catch_unwind(day);
    let log = world.log.unwrap_or_default();
    let from = log.len().saturating_sub(60);
    eprintln!("seed {seed}, {weather:?}:\n{}", log[from..].join("\n"));
}

/// What thousands of days come to.
#[derive(Debug, Default)]
struct Tally {
    resumes: u64,
    done: u64,
    /// Ended because too few machines were there, and otherwise.
    hopeless: u64,
    failed: u64,
    moves: u64,
    /// Rings that took over from one that ran, and times that streams waited.
    takeovers: u64,
    suspends: u64,
}

/// Days on which no stream is lost or answered twice and no lease leaks, or this panics.
fn days(weather: Weather) -> Tally {
    let mut tally = Tally::default();
    for seed in 0..SEEDS {
        let mut world = World::new(seed, weather);
        let day = std::panic::AssertUnwindSafe(|| world.day());
        if let Err(panic) = std::panic::catch_unwind(day) {
            show(seed, weather);
            std::panic::resume_unwind(panic);
        }
        for stream in &world.streams {
            assert_eq!(stream.ends, 1);
            let in_order = (0..).zip(&stream.tokens).all(|(a, b)| a == *b);
            assert!(in_order, "tokens out of order");
            match stream.failed {
                Some(_) if stream.is_hopeless => tally.hopeless += 1,
                Some(_) => tally.failed += 1,
                None => {
                    assert_eq!(stream.tokens.len() as u32, TOKENS);
                    tally.done += 1;
                }
            }
        }
        for pair in world.moves.windows(2) {
            assert!(
                pair[1] - pair[0] >= MOVE_INTERVAL,
                "seed {seed}: moved too often"
            );
        }
        tally.resumes += world.resumes.len() as u64;
        tally.moves += world.moves.len() as u64;
        tally.takeovers += world.takeovers as u64;
        tally.suspends += world.suspends as u64;
    }
    // Days are bad enough to mean something.
    assert!(tally.resumes > 4 * SEEDS, "{tally:?}");
    tally
}

#[test]
fn thousands_of_bad_days_lose_no_stream_and_leak_no_lease() {
    let tally = days(Weather::Deaths);
    // Nearly all get through for which there are machines, and half of all.
    assert!(tally.done > 20 * tally.failed, "{tally:?}");
    assert!(tally.done > tally.hopeless, "{tally:?}");
}

#[test]
fn thousands_of_days_with_leaves_and_slow_machines_lose_nothing_either() {
    let tally = days(Weather::Moves);
    // Machines die as often as on the other days, and leave besides, so that more often too few are there.
    assert!(tally.done > 10 * tally.failed, "{tally:?}");
    assert!(3 * tally.done > tally.hopeless, "{tally:?}");
    // Many rings come up while the one before still runs.
    assert!(tally.moves > SEEDS, "{tally:?}");
    assert!(tally.takeovers > SEEDS / 2, "{tally:?}");
}
