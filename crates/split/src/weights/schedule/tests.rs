//! The schedule against made-up sources on a virtual clock.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// How a made-up source behaves.
#[derive(Debug, Clone)]
struct Fake {
    tier: Tier,
    bytes_per_s: f64,
    /// Chunks from here on are not its own.
    has: std::ops::Range<usize>,
    /// Every so many-th chunk is wrong; 0 for never.
    corrupt_every: usize,
    /// Breaks off after so many chunks, for good.
    dies_after: usize,
}

impl Fake {
    fn new(tier: Tier, bytes_per_s: f64, has: std::ops::Range<usize>) -> Self {
        Self {
            tier,
            bytes_per_s,
            has,
            corrupt_every: 0,
            dies_after: usize::MAX,
        }
    }
}

/// Something that happens to a batch.
#[derive(Debug)]
enum Happening {
    Chunk(u32),
    Corrupt(u32),
    End(Result<(), Fault>),
}

struct World {
    schedule: Schedule,
    fakes: Vec<Fake>,
    sizes: Vec<u32>,
    now: Duration,
    /// By time and order.
    queue: BTreeMap<(Duration, u64), (u64, Happening)>,
    count: u64,
    /// Chunks that each source was asked for, and gave first.
    asked: Vec<Vec<u32>>,
    gave: Vec<usize>,
    sent: Vec<usize>,
    busy: BTreeMap<u64, usize>,
}

impl World {
    fn new(sizes: Vec<u32>, fakes: Vec<Fake>) -> Self {
        let mut schedule = Schedule::new(sizes.clone(), &[]);
        for fake in &fakes {
            schedule
                .add_source(fake.tier, |i| fake.has.contains(&i))
                .unwrap();
        }
        let zeros = vec![0; fakes.len()];
        Self {
            schedule,
            sizes,
            now: Duration::ZERO,
            queue: BTreeMap::new(),
            count: 0,
            asked: vec![Vec::new(); fakes.len()],
            gave: zeros.clone(),
            sent: zeros,
            busy: BTreeMap::new(),
            fakes,
        }
    }

    fn push(&mut self, at: Duration, batch: u64, what: Happening) {
        self.count += 1;
        self.queue.insert((at, self.count), (batch, what));
    }

    fn ask(&mut self, order: &Order) {
        let fake = self.fakes[order.source].clone();
        let bytes: u64 = order
            .chunks
            .iter()
            .map(|&c| u64::from(self.sizes[c as usize]))
            .sum();
        assert!(order.chunks.len() <= CHUNKS_PER_ASK && bytes <= BATCH_BYTES_MAX);
        assert!(
            order
                .chunks
                .iter()
                .all(|&c| fake.has.contains(&(c as usize)))
        );
        self.busy.insert(order.batch, order.source);
        let own = self.busy.values().filter(|&&s| s == order.source).count();
        assert!(own <= BATCHES_PER_SOURCE);
        self.asked[order.source].extend(&order.chunks);
        let mut at = self.now;
        for &chunk in &order.chunks {
            if self.sent[order.source] >= fake.dies_after {
                let why = Fault::Broken("it died".to_owned());
                return self.push(
                    at + Duration::from_millis(1),
                    order.batch,
                    Happening::End(Err(why)),
                );
            }
            let seconds = f64::from(self.sizes[chunk as usize]) / fake.bytes_per_s;
            // A silent source runs into the timeout of its stream.
            if seconds > 60.0 {
                at += Duration::from_secs(60);
                let why = Fault::Broken("it is silent".to_owned());
                return self.push(at, order.batch, Happening::End(Err(why)));
            }
            at += Duration::from_secs_f64(seconds);
            self.sent[order.source] += 1;
            let wrong = fake.corrupt_every > 0
                && self.sent[order.source].is_multiple_of(fake.corrupt_every);
            let what = if wrong {
                Happening::Corrupt
            } else {
                Happening::Chunk
            };
            self.push(at, order.batch, what(chunk));
        }
        self.push(at, order.batch, Happening::End(Ok(())));
    }

    /// Runs to the end; the time that it took, or `None` when some chunk cannot be had.
    fn run(&mut self) -> Option<Duration> {
        for _ in 0..1_000_000 {
            if self.schedule.is_complete() {
                return Some(self.now);
            }
            if self.schedule.stuck().is_some() {
                return None;
            }
            while let Some(order) = self.schedule.next(self.now) {
                self.ask(&order);
            }
            let wake = self.schedule.wake_at(self.now);
            let event = self.queue.keys().next().map(|(at, _)| *at);
            self.now = match (wake, event) {
                (Some(wake), Some(event)) if wake < event => wake,
                (_, Some(event)) => event,
                (Some(wake), None) => wake,
                (None, None) => panic!("nothing will ever happen"),
            };
            while let Some(entry) = self.queue.first_entry() {
                if entry.key().0 > self.now {
                    break;
                }
                let (batch, what) = entry.remove();
                self.happen(batch, what);
            }
        }
        panic!("it does not end");
    }

    fn happen(&mut self, batch: u64, what: Happening) {
        match what {
            Happening::Chunk(chunk) => {
                if self.schedule.arrived(batch, chunk, self.now) {
                    self.gave[self.busy[&batch]] += 1;
                }
            }
            Happening::Corrupt(chunk) => self.schedule.refused(batch, chunk, Refused::Corrupt),
            Happening::End(result) => {
                self.busy.remove(&batch);
                self.schedule.ended(batch, result, self.now);
            }
        }
    }
}

const MIB: f64 = (1 << 20) as f64;

fn chunks(count: usize) -> Vec<u32> {
    vec![1 << 20; count]
}

#[test]
fn faster_sources_give_more() {
    let peer = |rate| Fake::new(Tier::Peer, rate * MIB, 0..400);
    let mut world = World::new(chunks(400), vec![peer(10.0), peer(1.0)]);
    let time = world.run().unwrap();
    assert!(world.gave[0] > 7 * world.gave[1], "{:?}", world.gave);
    assert!(world.gave[1] > 10, "{:?}", world.gave);
    // Four batches of each at a time: 44 MiB/s together.
    assert!(time < Duration::from_secs(13), "{time:?}");
}

#[test]
fn the_hub_gives_only_what_no_member_has() {
    let mut world = World::new(
        chunks(60),
        vec![
            Fake::new(Tier::Hub, 100.0 * MIB, 0..60),
            Fake::new(Tier::Peer, 5.0 * MIB, 0..40),
            Fake::new(Tier::Local, 50.0 * MIB, 0..10),
        ],
    );
    world.run().unwrap();
    assert_eq!(world.gave, [20, 30, 10]);
    assert!(
        world.asked[0].iter().all(|&c| c >= 40),
        "{:?}",
        world.asked[0]
    );
}

#[test]
fn rare_chunks_go_first() {
    let mut world = World::new(
        chunks(40),
        vec![
            Fake::new(Tier::Peer, MIB, 0..40),
            Fake::new(Tier::Peer, MIB, 0..30),
        ],
    );
    let first = world.schedule.next(Duration::ZERO).unwrap();
    assert_eq!((first.source, first.chunks), (0, vec![30]));
    world = World::new(world.sizes, world.fakes);
    world.run().unwrap();
}

#[test]
fn what_a_dying_source_owes_goes_to_others() {
    let mut dying = Fake::new(Tier::Peer, 10.0 * MIB, 0..100);
    dying.dies_after = 20;
    let other = Fake::new(Tier::Peer, MIB, 0..100);
    let mut world = World::new(chunks(100), vec![dying, other]);
    world.run().unwrap();
    assert_eq!(world.gave.iter().sum::<usize>(), 100);
    assert!(world.gave[0] <= 20);
    assert_eq!(world.schedule.out(0), Some("it died"));
}

#[test]
fn a_silent_source_holds_nobody_up() {
    for tier in [Tier::Peer, Tier::Hub] {
        let silent = Fake::new(Tier::Peer, 1.0, 0..50);
        let mut world = World::new(chunks(50), vec![silent, Fake::new(tier, 10.0 * MIB, 0..50)]);
        let time = world.run().unwrap();
        assert!(time < Duration::from_secs(10), "{tier}: {time:?}");
    }
}

#[test]
fn a_corrupt_source_is_left_out_and_its_chunks_come_from_elsewhere() {
    let mut corrupt = Fake::new(Tier::Peer, 10.0 * MIB, 0..100);
    corrupt.corrupt_every = 1;
    let honest = Fake::new(Tier::Hub, MIB, 0..100);
    let mut world = World::new(chunks(100), vec![corrupt, honest]);
    world.run().unwrap();
    assert_eq!(world.gave, [0, 100]);
    assert_eq!(world.schedule.out(0), Some("it sends wrong bytes"));

    // One mistake is forgiven, even when nobody else has the chunk.
    let mut rare = Fake::new(Tier::Peer, 10.0 * MIB, 0..20);
    rare.corrupt_every = 15;
    let mut world = World::new(chunks(20), vec![rare]);
    assert!(world.run().is_some());
    // A liar alone ends the fetch.
    let mut liar = Fake::new(Tier::Peer, 10.0 * MIB, 0..20);
    liar.corrupt_every = 1;
    assert_eq!(World::new(chunks(20), vec![liar]).run(), None);
}

#[test]
fn what_nobody_has_is_told_at_once() {
    let mut world = World::new(chunks(3), vec![Fake::new(Tier::Peer, MIB, 0..2)]);
    assert_eq!(world.schedule.stuck(), Some(2));
    assert_eq!(world.run(), None);
    assert_eq!(World::new(chunks(1), vec![]).run(), None);
    assert!(World::new(vec![], vec![]).run().is_some());
    let done = Schedule::new(chunks(2), &[true, true]);
    assert!(done.is_complete() && done.stuck().is_none());
}

#[test]
fn small_chunks_share_a_batch() {
    let sizes = vec![1000; 200];
    let mut world = World::new(sizes, vec![Fake::new(Tier::Hub, MIB, 0..200)]);
    let first = world.schedule.next(Duration::ZERO).unwrap();
    assert_eq!(first.chunks.len(), CHUNKS_PER_ASK);
}

fn fakes() -> impl Strategy<Value = Vec<Fake>> {
    let tier = prop::sample::select(vec![Tier::Local, Tier::Peer, Tier::Hub]);
    let rate = prop::sample::select(vec![1.0, 0.1 * MIB, MIB, 30.0 * MIB]);
    let dies = prop_oneof![Just(usize::MAX), 0usize..60];
    let one = (tier, rate, 0usize..60, 0usize..60, 0usize..6, dies);
    let fake = one.prop_map(|(tier, rate, a, b, corrupt_every, dies_after)| Fake {
        corrupt_every,
        dies_after,
        ..Fake::new(tier, rate, a.min(b)..a.max(b))
    });
    prop::collection::vec(fake, 0..6)
}

proptest! {
    #[test]
    fn any_fetch_ends(
        sizes in prop::collection::vec(1u32..=1 << 20, 0..60),
        fakes in fakes(),
        honest in any::<bool>(),
    ) {
        let mut fakes = fakes;
        let count = sizes.len();
        for fake in &mut fakes {
            fake.has = fake.has.start.min(count)..fake.has.end.min(count);
        }
        if honest {
            fakes.push(Fake::new(Tier::Hub, MIB, 0..count));
        }
        let mut world = World::new(sizes, fakes);
        let time = world.run();
        // One honest source of everything is enough, whatever the others do.
        prop_assert!(!honest || time.is_some());
        if time.is_some() {
            prop_assert_eq!(world.gave.iter().sum::<usize>(), count);
        }
    }
}
