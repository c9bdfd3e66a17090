//! A ring takes the place of one that was lost, and only those compute who have lost something.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Duration;

use split::layers::{Layers, LayersError};
use split::ring::{Memory, Replay, Ring, RingError, RingPlan};

use crate::fake::{BUDGET, Batch, Sums, plan, whole};
use crate::net::{Link, node};
use crate::rig::Rig;

const PAUSE: Duration = Duration::from_millis(100);
const SEQUENCES: u32 = 4;

/// Something that was asked of the ring.
enum Asked {
    Rows(Batch),
    Copy(u32, u32, u32),
    Cut(u32, u32),
}

/// A ring, and what it must give.
struct Pair {
    ring: Ring,
    whole: Sums,
    /// What the whole has still to do.
    asked: VecDeque<Asked>,
    /// Positions behind all that was asked for.
    lengths: [u32; SEQUENCES as usize],
}

impl Pair {
    async fn new(rig: &Rig, plan: &RingPlan) -> Self {
        Self {
            ring: rig.raise(plan).await.unwrap(),
            whole: whole(plan),
            asked: VecDeque::new(),
            lengths: [0; SEQUENCES as usize],
        }
    }

    async fn submit(&mut self, sequence: u32, rows: u32) -> Result<(), RingError> {
        let length = &mut self.lengths[sequence as usize];
        let batch = Batch::new(sequence as i32, *length as i32, rows as i32);
        self.ring.submit(&batch.rows()).await?;
        *length += rows;
        self.asked.push_back(Asked::Rows(batch));
        Ok(())
    }

    async fn copy(&mut self, from: u32, to: u32, tokens: u32) -> Result<(), RingError> {
        self.ring.copy(from, to, tokens).await?;
        self.lengths[to as usize] = tokens.min(self.lengths[from as usize]);
        self.asked.push_back(Asked::Copy(from, to, tokens));
        Ok(())
    }

    async fn cut(&mut self, sequence: u32, from: u32) -> Result<(), RingError> {
        self.ring.cut(sequence, from).await?;
        let length = &mut self.lengths[sequence as usize];
        *length = from.min(*length);
        self.asked.push_back(Asked::Cut(sequence, from));
        Ok(())
    }

    fn rows_in_flight(&self) -> usize {
        let rows = self.asked.iter();
        rows.filter(|asked| matches!(asked, Asked::Rows(_))).count()
    }

    /// Receives the oldest rows, which are what the whole makes of them.
    async fn receive(&mut self) -> Result<(), RingError> {
        let mut got = Vec::new();
        self.ring.receive(&mut got).await?;
        let mut wanted = Vec::new();
        while wanted.is_empty() {
            match self.asked.pop_front().expect("more came than was sent") {
                Asked::Rows(batch) => self.whole.run(&batch.rows(), &mut wanted).unwrap(),
                Asked::Copy(from, to, tokens) => self.whole.copy(from, to, tokens).unwrap(),
                Asked::Cut(sequence, from) => self.whole.cut(sequence, from).unwrap(),
            }
        }
        assert_eq!(got, wanted);
        Ok(())
    }

    async fn run(&mut self, sequence: u32, rows: u32) {
        self.submit(sequence, rows).await.unwrap();
        self.receive().await.unwrap();
    }

    /// The ring is lost; what its successor should hold of each sequence.
    fn lost(self) -> (Memory, Sums, [u32; SEQUENCES as usize]) {
        let mut memory = self.ring.into_memory();
        let mut held = self.lengths;
        memory.hold(&mut held);
        (memory, self.whole, held)
    }

    /// What a ring holds that has taken over.
    async fn taken_over(mut ring: Ring, mut whole: Sums, mut held: [u32; 4]) -> Self {
        ring.hold(&mut held).await.unwrap();
        for (sequence, held) in (0..).zip(held) {
            whole.cut(sequence, held).unwrap();
        }
        Self {
            ring,
            whole,
            asked: VecDeque::new(),
            lengths: held,
        }
    }
}

/// The ring `plan`, which goes on where the one of `memory` was lost.
async fn take_over(rig: &Rig, plan: &RingPlan, mut memory: Memory) -> (Ring, u64) {
    let mut ring = rig.raise(plan).await.unwrap();
    let replay = replay(&mut ring, &mut memory).await.unwrap();
    let rows = replay.rows();
    ring.adopt(replay, memory);
    (ring, rows)
}

async fn replay(ring: &mut Ring, memory: &mut Memory) -> Result<Replay, RingError> {
    let mut replay = ring.restore(memory);
    while !replay.advance(ring, memory, PAUSE).await? {}
    Ok(replay)
}

/// Loses a ring by what was done to its machines.
async fn lose(pair: &mut Pair) {
    let lost = loop {
        let done = match pair.rows_in_flight() {
            0 => pair.submit(0, 1).await,
            _ => pair.receive().await,
        };
        if let Err(error) = done {
            break error;
        }
    };
    assert!(matches!(lost, RingError::Lost(_)), "{lost}");
    // Others may be at a frame that they have.
    tokio::time::sleep(PAUSE).await;
}

fn calls(rig: &Rig) -> Vec<u32> {
    let calls = rig.fakes.iter();
    calls
        .map(|fake| fake.calls.load(Ordering::SeqCst))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn only_the_machine_that_steps_in_computes() {
    for gone in 1..=3_u8 {
        let rig = Rig::new(4);
        let mut plan = plan(1, 1, 3);
        let mut pair = Pair::new(&rig, &plan).await;
        pair.run(0, 20).await;
        pair.run(1, 5).await;
        pair.copy(0, 2, 12).await.unwrap();
        pair.run(2, 3).await;
        pair.cut(1, 4).await.unwrap();
        pair.run(1, 2).await;
        // These are under way when the machine goes.
        pair.submit(0, 1).await.unwrap();
        pair.submit(2, 1).await.unwrap();
        rig.net.set(gone, Link::Cut);
        lose(&mut pair).await;
        let (memory, whole, held) = pair.lost();
        assert!(
            held[0] >= 20 && held[1] == 6 && held[2] >= 15 && held[3] == 0,
            "{held:?}"
        );

        plan.epoch = 2;
        plan.workers[usize::from(gone) - 1].node = node(4);
        let before = calls(&rig);
        let loads: Vec<_> = rig.fakes.iter().map(|fake| fake.loads()).collect();
        let (ring, rows) = take_over(&rig, &plan, memory).await;
        // The third sequence has its beginning from the first one.
        assert_eq!(rows, u64::from(held[0] + held[1] + held[2] - 12));
        let after = calls(&rig);
        for worker in 0..4 {
            let computes = after[worker] > before[worker];
            assert_eq!(computes, worker == 3, "worker {worker}, gone {gone}");
            let loaded = rig.fakes[worker].loads() - loads[worker];
            assert_eq!(loaded, u32::from(worker == 3));
        }
        let mut pair = Pair::taken_over(ring, whole, held).await;
        for sequence in 0..4 {
            assert_eq!(pair.lengths[sequence as usize], held[sequence as usize]);
            pair.run(sequence, 3).await;
        }
        rig.net.set(gone, Link::Up);
        tokio::time::sleep(Duration::from_secs(31)).await;
        rig.end(pair.ring).await;
    }
}

#[tokio::test(start_paused = true)]
async fn layers_that_lie_elsewhere_are_filled_from_the_stage_before() {
    let rig = Rig::new(3);
    let mut plan = plan(1, 1, 3);
    let mut pair = Pair::new(&rig, &plan).await;
    pair.run(0, 30).await;
    rig.net.set(2, Link::Cut);
    lose(&mut pair).await;
    let (memory, whole, held) = pair.lost();
    // The third one takes what the second had: it loads anew, and the first keeps what it has.
    plan.epoch = 2;
    plan.workers.remove(1);
    plan.workers[1].layers = 2..6;
    let before = calls(&rig);
    let (ring, _) = take_over(&rig, &plan, memory).await;
    let after = calls(&rig);
    assert!(after[0] == before[0] && after[2] > before[2]);
    let mut pair = Pair::taken_over(ring, whole, held).await;
    assert!(pair.lengths[0] >= 30);
    pair.run(0, 2).await;
}

#[tokio::test(start_paused = true)]
async fn rows_that_found_no_room_in_a_trail_are_given_up() {
    let rig = Rig::new(4);
    let mut plan = plan(1, 1, 3);
    let mut pair = Pair::new(&rig, &plan).await;
    // Room for 24 rows.
    rig.workers[0].set_budget(16 * 24 * 32).await;
    pair.run(0, 20).await;
    pair.run(1, 10).await;
    rig.net.set(2, Link::Cut);
    lose(&mut pair).await;
    let (memory, whole, held) = pair.lost();
    rig.workers[0].set_budget(BUDGET).await;
    plan.epoch = 2;
    plan.workers[1].node = node(4);
    let (ring, _) = take_over(&rig, &plan, memory).await;
    let mut pair = Pair::taken_over(ring, whole, held).await;
    assert!(held[1] == 10 && pair.lengths[0] >= 20, "{held:?}");
    pair.run(0, 2).await;
    // Nobody holds these any more: they are to be sent once more.
    assert_eq!(pair.lengths[1], 0);
    pair.run(1, 4).await;
}

#[tokio::test(start_paused = true)]
async fn who_begins_anew_finds_stages_empty() {
    let rig = Rig::new(2);
    let mut plan = plan(1, 1, 2);
    let mut pair = Pair::new(&rig, &plan).await;
    pair.run(0, 9).await;
    drop(pair);
    // The lease is not over, so the layers are still there.
    plan.epoch = 2;
    let mut pair = Pair::new(&rig, &plan).await;
    pair.run(0, 4).await;
    rig.end(pair.ring).await;
}

/// Numbers that look random.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = self.0.wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as u32) % end
    }
}

/// Does something to the ring, or takes in what it was asked for.
async fn anything(pair: &mut Pair, dice: &mut Dice) -> Result<(), RingError> {
    let sequence = dice.below(SEQUENCES);
    let length = pair.lengths[sequence as usize];
    match dice.below(10) {
        0 if length > 0 => pair.cut(sequence, dice.below(length)).await,
        // As the scheduler does: into an empty sequence, and only what is known to be there.
        1 if pair.rows_in_flight() == 0 => {
            let to = (sequence + 1) % SEQUENCES;
            pair.cut(to, 0).await?;
            match length {
                0 => Ok(()),
                length => pair.copy(sequence, to, 1 + dice.below(length)).await,
            }
        }
        2..6 if pair.rows_in_flight() < pair.ring.depth() && length < 50 => {
            pair.submit(sequence, 1 + dice.below(6)).await
        }
        _ if pair.rows_in_flight() > 0 => pair.receive().await,
        _ => Ok(()),
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_when_a_ring_goes_on_as_if_nothing_had() {
    let mut replayed = 0;
    for seed in 0..60 {
        let mut dice = Dice(seed);
        let rig = Rig::new(5);
        let mut plan = plan(1, 1, 3);
        let mut pair = Pair::new(&rig, &plan).await;
        for _ in 0..5 {
            for _ in 0..dice.below(60) {
                anything(&mut pair, &mut dice).await.unwrap();
            }
            // Until a ring stands and is full: others may go meanwhile.
            let mut lost = Vec::new();
            let mut gone = plan.workers[dice.below(3) as usize].node.as_bytes()[0];
            rig.net.set(gone, Link::Cut);
            lose(&mut pair).await;
            let (mut memory, whole, held) = pair.lost();
            let ring = loop {
                lost.push(gone);
                plan.epoch += 1;
                let used: Vec<_> = plan.workers.iter().map(|seat| seat.node).collect();
                let spare = (1..=5)
                    .map(node)
                    .find(|node| !used.contains(node) && !lost.contains(&node.as_bytes()[0]));
                let seat = plan.workers.iter_mut().find(|seat| seat.node == node(gone));
                seat.unwrap().node = spare.unwrap();
                let mut ring = rig.raise(&plan).await.unwrap();
                if lost.len() < 2 && dice.below(3) == 0 {
                    // The next one goes before, or in the middle of it.
                    gone = plan.workers[dice.below(3) as usize].node.as_bytes()[0];
                    let mut replay = ring.restore(&mut memory);
                    if dice.below(2) == 0 {
                        let pause = Duration::from_micros(1);
                        let _ = replay.advance(&mut ring, &memory, pause).await;
                    }
                    rig.net.set(gone, Link::Cut);
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                match replay(&mut ring, &mut memory).await {
                    Ok(replay) => {
                        replayed += replay.rows();
                        ring.adopt(replay, memory);
                        break ring;
                    }
                    Err(error) => panic!("seed {seed}: {error}"),
                }
            };
            pair = Pair::taken_over(ring, whole, held).await;
            assert_eq!(pair.lengths, held, "seed {seed}");
            for gone in lost {
                // It is there again, with whatever it still has.
                rig.net.set(gone, Link::Up);
            }
        }
    }
    assert!(replayed > 10_000, "{replayed}");
}

#[test]
fn layers_of_the_test_notice_rows_that_do_not_follow() {
    let mut whole = whole(&plan(1, 1, 2));
    let mut out = Vec::new();
    let early = whole.run(&Batch::new(0, 1, 1).rows(), &mut out);
    assert!(matches!(early, Err(LayersError::Input(_))));
}
