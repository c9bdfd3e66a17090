//! A host, its workers with their real tables of leases, streams, and everything that may go wrong, on a
//! virtual clock. Same seed, same day.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::lease::{self, LEASE_MAX, Table};
use crate::spec::RingId;

/// Days that are simulated.
const SEEDS: u64 = 3_000;
/// Virtual seconds with faults, and without, until all must be well.
const BAD: Duration = Duration::from_secs(1_200);
const GOOD: Duration = Duration::from_secs(600);
const RING: RingId = RingId([1; 16]);
const LEASE: Duration = Duration::from_secs(30);
/// What a stage takes, and a worker has.
const STAGE_BYTES: u64 = 10;
const BUDGET: u64 = 15;
/// Rings need so many workers.
const WORKERS: usize = 2;
/// Tokens of a stream.
const TOKENS: u32 = 40;

/// Small, fast and seeded: SplitMix64.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn one_in(&mut self, odds: u64) -> bool {
        self.below(odds) == 0
    }

    fn millis(&mut self, most: u64) -> Duration {
        Duration::from_millis(self.below(most))
    }
}

/// What is under way.
#[derive(Debug, Clone)]
enum Later {
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
}

struct Worker {
    table: Table<u8>,
    is_alive: bool,
    /// Epochs of our ring that are loaded or being loaded here.
    granted: BTreeSet<u32>,
    refused: BTreeSet<u32>,
    rivals: u8,
}

#[derive(Debug, Default)]
struct Stream {
    tokens: Vec<u32>,
    failed: Option<String>,
    ends: u32,
}

struct World {
    dice: Dice,
    now: Duration,
    order: u64,
    later: BTreeMap<(Duration, u64), Later>,
    recovery: Recovery<u8>,
    workers: Vec<Worker>,
    streams: Vec<Stream>,
    /// The ring that streams run on.
    running: Option<u32>,
    /// Rings and attempts that were not released.
    open: BTreeMap<u32, Vec<u8>>,
    suspended_since: Option<Duration>,
    resumes: Vec<u32>,
    is_bad: bool,
    /// Kept when a day is looked at again.
    log: Option<Vec<String>>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let worker = || Worker {
            table: Table::new(BUDGET),
            is_alive: true,
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
            resumes: Vec::new(),
            is_bad: true,
            log: None,
        }
    }

    fn after(&mut self, pause: Duration, what: Later) {
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
                self.host(Event::Returned(worker));
            }
            Later::Rival(worker) => self.rival(worker),
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
        for effect in self.recovery.handle(event, self.now) {
            if let Some(log) = &mut self.log {
                log.push(format!("    {effect:?}"));
            }
            self.effect(effect);
        }
    }

    fn effect(&mut self, effect: Effect<u8>) {
        match effect {
            Effect::Plan { epoch, without } => self.plan(epoch, &without),
            Effect::Raise { epoch, workers } => {
                assert!(self.open.insert(epoch, workers.clone()).is_none());
                for &worker in &workers {
                    let ask = lease::Event::Ask(lease::Ask {
                        host: 0,
                        ring: RING,
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
                        let release = lease::Event::Release(RING, epoch);
                        self.after(pause, Later::ToWorker(worker, release));
                    }
                }
            }
            Effect::Suspend { .. } => {
                assert_eq!(self.running, None, "a ring is let go before streams wait");
                self.suspended_since = Some(self.now);
            }
            Effect::Resume { epoch } => {
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
                if let Some(since) = since.filter(|_| !is_over) {
                    assert!(self.now >= since + PATIENCE, "streams fail too early");
                }
                for stream in self.streams.iter_mut().filter(|s| s.ends == 0) {
                    stream.failed = Some(text.clone());
                    stream.ends += 1;
                }
            }
            Effect::Waiting { .. } => {}
        }
    }

    fn plan(&mut self, epoch: u32, without: &BTreeSet<u8>) {
        let free = |worker: &Worker| worker.rivals == 0;
        let numbers = 0..self.workers.len() as u8;
        // The planner does not know at once who is dead.
        let mut chosen: Vec<u8> = numbers
            .filter(|number| !without.contains(number))
            .filter(|number| free(&self.workers[usize::from(*number)]))
            .collect();
        while chosen.len() > WORKERS {
            let out = self.dice.below(chosen.len() as u64) as usize;
            chosen.remove(out);
        }
        let event = match chosen.len() {
            WORKERS => Event::Planned {
                epoch,
                workers: chosen,
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
        self.after(Duration::from_millis(700), Later::Step(epoch));
    }

    fn renew(&mut self, epoch: u32) {
        if let Some(workers) = self.open.get(&epoch).cloned() {
            for worker in workers {
                self.after(
                    Duration::from_millis(10),
                    Later::ToWorker(worker, lease::Event::Renew(RING, epoch)),
                );
            }
            self.after(LEASE / 3, Later::Renew(epoch));
        }
    }

    fn kill(&mut self, number: u8) {
        if !self.is_bad {
            return;
        }
        // Memory and leases die with the machine.
        let worker = &mut self.workers[usize::from(number)];
        worker.is_alive = false;
        worker.table = Table::new(BUDGET);
        worker.granted.clear();
        worker.rivals = 0;
        let pause = self.dice.millis(120_000);
        self.after(pause, Later::Revive(number));
        let pause = pause + self.dice.millis(400_000);
        self.after(pause, Later::Kill(number));
    }

    fn rival(&mut self, number: u8) {
        if !self.is_bad || !self.workers[usize::from(number)].is_alive {
            return;
        }
        let ask = lease::Event::Ask(lease::Ask {
            host: 7,
            ring: RingId([9; 16]),
            epoch: self.order as u32,
            bytes: STAGE_BYTES,
            lease: LEASE,
        });
        self.worker(number, ask);
        let pause = self.dice.millis(200_000);
        self.after(pause, Later::Rival(number));
    }

    fn worker(&mut self, number: u8, event: lease::Event<u8>) {
        let effects = self.workers[usize::from(number)]
            .table
            .handle(event, self.now);
        for effect in effects {
            let worker = &mut self.workers[usize::from(number)];
            match effect {
                lease::Effect::Grant(RING, epoch) => {
                    assert!(worker.granted.insert(epoch), "granted twice");
                }
                lease::Effect::Grant(..) => worker.rivals += 1,
                lease::Effect::Refuse(RING, epoch, _) => {
                    worker.refused.insert(epoch);
                }
                lease::Effect::Refuse(..) => {}
                lease::Effect::End(ring, epoch, _) => {
                    match ring == RING {
                        true => assert!(worker.granted.remove(&epoch), "ended twice"),
                        false => worker.rivals -= 1,
                    }
                    let pause = self.dice.millis(3_000);
                    let gone = lease::Event::Gone(ring, epoch);
                    self.after(pause, Later::ToWorker(number, gone));
                }
            }
            let table = &self.workers[usize::from(number)].table;
            assert!(table.used_bytes() <= BUDGET, "memory is promised twice");
        }
        let worker = &self.workers[usize::from(number)];
        assert!(worker.granted.len() <= 1, "two epochs in one memory");
    }
}

/// The end of a day that went wrong.
fn show(seed: u64) {
    let mut world = World::new(seed);
    world.log = Some(Vec::new());
    let day = std::panic::AssertUnwindSafe(|| world.day());
    let _ = std::panic::catch_unwind(day);
    let log = world.log.unwrap_or_default();
    let from = log.len().saturating_sub(60);
    eprintln!("seed {seed}:\n{}", log[from..].join("\n"));
}

#[test]
fn thousands_of_bad_days_lose_no_stream_and_leak_no_lease() {
    let (mut resumes, mut failed, mut done) = (0, 0, 0);
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        let day = std::panic::AssertUnwindSafe(|| world.day());
        if let Err(panic) = std::panic::catch_unwind(day) {
            show(seed);
            std::panic::resume_unwind(panic);
        }
        for stream in &world.streams {
            assert_eq!(stream.ends, 1);
            let in_order = (0..).zip(&stream.tokens).all(|(a, b)| a == *b);
            assert!(in_order, "tokens out of order");
            match stream.failed {
                Some(_) => failed += 1,
                None => {
                    assert_eq!(stream.tokens.len() as u32, TOKENS);
                    done += 1;
                }
            }
        }
        resumes += world.resumes.len();
    }
    // Days are bad enough to mean something, and most streams get through.
    assert!(resumes as u64 > 4 * SEEDS, "{resumes} rings");
    assert!(done > 3 * failed, "{done} done, {failed} failed");
}
