//! Several steps in flight: stages that pass them on to each other on a clock of their own, so that what is
//! asserted of time does not depend on this machine's.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use engine::stage::{EmbeddingTable, LocalStages, StageBatch, StageError, Stages, Trip};
use engine::{
    Backend, Draft, Engine, Event, EventStream, FinishReason, Input, LoadOptions, ModelSource,
    Request, TokenId,
};
use futures::StreamExt;

use crate::generation;

/// Longer than anything here takes.
const HANG: Duration = Duration::from_secs(60);
/// Slots of the engine.
const SLOTS: u32 = 4;
/// Tokens of an answer.
const TOKENS: u32 = 20;
/// Prompts among which those are looked for whose answers are sure.
const SEEDS: i32 = 60;
/// How much likelier each token of such an answer is than the next best one, at least, as a logarithm: what a
/// row shares its step with changes its last bits, and must not change the token.
const MARGIN_MIN: f32 = 0.01;

/// How long things take, ms.
#[derive(Debug, Clone, Copy)]
struct Times {
    /// Parts of the model, the tail among them; each computes a step for the same time.
    parts: usize,
    /// Most steps in flight.
    depth: usize,
    /// From part to part and back, in all.
    link: f64,
    /// A step, in all parts together: the weights, and each row.
    step: f64,
    row: f64,
}

impl Times {
    /// Three machines.
    const SPLIT: Self = Self {
        parts: 3,
        depth: 5,
        link: 20.0,
        step: 0.0,
        row: 30.0,
    };
    /// The same work on one.
    const WHOLE: Self = Self {
        parts: 1,
        depth: 1,
        link: 0.0,
        ..Self::SPLIT
    };
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    NoRoom,
    Lost,
}

/// What was seen.
#[derive(Debug, Default)]
struct Seen {
    /// Time on the clock, ms.
    now: f64,
    in_flight: usize,
    in_flight_most: usize,
    /// Rows of the largest step.
    rows_most: usize,
    steps: usize,
    /// For each sequence that got a single row: when it last did, and the longest gap.
    tokens: BTreeMap<i32, (f64, f64)>,
    /// Steps that found no room.
    refused: usize,
}

/// A step that is evaluated, and not back yet on the clock.
struct Flight {
    hidden: Vec<f32>,
    sequences: Vec<i32>,
    result: Result<(), StageError>,
    sent: f64,
    back: f64,
    step_ms: f64,
}

/// Stages that each work on one step at a time.
struct Relay {
    stages: LocalStages,
    times: Times,
    /// What goes wrong at which step, from 1.
    troubles: BTreeMap<usize, Trouble>,
    /// Sequences that lack rows.
    gaps: BTreeSet<u32>,
    flights: VecDeque<Flight>,
    /// When each part is free.
    free: Vec<f64>,
    trip: Trip,
    seen: Arc<Mutex<Seen>>,
    gate: Arc<Gate>,
}

/// Holds steps up while it is closed: the clock does not go on before all who ask at once have asked.
#[derive(Default)]
struct Gate {
    is_closed: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn set(&self, is_closed: bool) {
        *self.is_closed.lock().unwrap() = is_closed;
        self.opened.notify_all();
    }

    fn pass(&self) {
        let is_closed = self.is_closed.lock().unwrap();
        let wait = self
            .opened
            .wait_timeout_while(is_closed, HANG, |closed| *closed);
        assert!(!wait.unwrap().1.timed_out(), "nobody opens the gate");
    }
}

fn duration(ms: f64) -> Duration {
    Duration::from_secs_f64(ms.max(0.0) / 1e3)
}

impl Stages for Relay {
    fn depth(&self) -> usize {
        self.times.depth
    }

    fn parts(&self) -> usize {
        self.times.parts
    }

    fn submit(&mut self, batch: &StageBatch<'_>) -> Result<(), StageError> {
        self.gate.pass();
        let mut seen = self.seen.lock().unwrap();
        seen.steps += 1;
        let trouble = self.troubles.get(&seen.steps).copied();
        let numbers = || batch.sequences.iter().map(|s| s.unsigned_abs());
        let follows_gap = numbers().any(|s| self.gaps.contains(&s));
        let result = match trouble {
            Some(Trouble::Lost) => Err(StageError::Lost("the machine is gone".into())),
            None if !follows_gap => Ok(()),
            _ => Err(StageError::NoRoom),
        };
        if result == Err(StageError::NoRoom) {
            self.gaps.extend(numbers());
        }
        let mut hidden = Vec::new();
        if result.is_ok() {
            self.stages.submit(batch)?;
            self.stages.receive(&mut hidden)?;
        }
        let Times {
            parts,
            link,
            step,
            row,
            ..
        } = self.times;
        let step_ms = step + row * batch.len() as f64;
        let mut at = seen.now;
        for free in &mut self.free {
            at = free.max(at + link / parts as f64) + step_ms / parts as f64;
            *free = at;
        }
        self.flights.push_back(Flight {
            hidden,
            sequences: batch.sequences.to_vec(),
            result,
            sent: seen.now,
            back: at + link / parts as f64,
            step_ms,
        });
        seen.rows_most = seen.rows_most.max(batch.len());
        seen.in_flight += 1;
        seen.in_flight_most = seen.in_flight_most.max(seen.in_flight);
        Ok(())
    }

    fn receive(&mut self, hidden: &mut Vec<f32>) -> Result<(), StageError> {
        let flight = self.flights.pop_front().unwrap();
        let mut seen = self.seen.lock().unwrap();
        seen.in_flight -= 1;
        // The tail is a part too, and works here.
        let tail_ms = flight.step_ms / self.times.parts as f64;
        let began = seen.now.max(flight.back);
        seen.now = began + tail_ms;
        self.trip = Trip {
            total: duration(seen.now - flight.sent),
            computing: duration(flight.step_ms),
        };
        let now = seen.now;
        let mut rows: BTreeMap<i32, usize> = BTreeMap::new();
        flight
            .sequences
            .iter()
            .for_each(|s| *rows.entry(*s).or_default() += 1);
        for (sequence, _) in rows.into_iter().filter(|(_, rows)| *rows == 1) {
            let (last, gap) = seen.tokens.entry(sequence).or_insert((now, 0.0));
            *gap = gap.max(now - *last);
            *last = now;
        }
        seen.refused += usize::from(flight.result == Err(StageError::NoRoom));
        *hidden = flight.hidden;
        flight.result
    }

    fn trip(&self) -> Option<Trip> {
        Some(self.trip)
    }

    fn copy(&mut self, from: u32, to: u32, tokens: u32) -> Result<(), StageError> {
        self.gaps.remove(&to);
        self.stages.copy(from, to, tokens)
    }

    fn cut(&mut self, sequence: u32, from: u32) -> Result<(), StageError> {
        self.gaps.remove(&sequence);
        self.stages.cut(sequence, from)
    }

    fn clear(&mut self) -> Result<(), StageError> {
        self.flights.clear();
        self.gaps.clear();
        self.seen.lock().unwrap().in_flight = 0;
        self.stages.clear()
    }
}

/// An engine over such stages.
struct Split {
    engine: Engine,
    seen: Arc<Mutex<Seen>>,
    gate: Arc<Gate>,
    _folder: tempfile::TempDir,
}

impl Split {
    fn new(times: Times, troubles: &[(usize, Trouble)]) -> Self {
        Self::with_draft(times, troubles, Draft::None)
    }

    fn with_draft(times: Times, troubles: &[(usize, Trouble)], draft: Draft) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let slices = generation::slices(&folder);
        let (tail, parts) = slices.parts.split_last().unwrap();
        let options = LoadOptions {
            context_tokens: Some(1024),
            slots: Some(SLOTS),
            threads: Some(1),
            draft,
            ..LoadOptions::new(ModelSource::Path(tail.clone()))
        };
        let seen = Arc::<Mutex<Seen>>::default();
        let gate = Arc::<Gate>::default();
        let relay = Relay {
            stages: generation::stages(parts, &options),
            times,
            troubles: troubles.iter().copied().collect(),
            gaps: BTreeSet::new(),
            flights: VecDeque::new(),
            // The tail's time is the host's.
            free: vec![0.0; times.parts - 1],
            trip: Trip::default(),
            seen: Arc::clone(&seen),
            gate: Arc::clone(&gate),
        };
        let embedding = EmbeddingTable::open(&slices.whole).unwrap();
        let engine = Engine::load_split(&options, embedding, Box::new(relay)).unwrap();
        Self {
            engine,
            seen,
            gate,
            _folder: folder,
        }
    }

    fn seen<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.seen.lock().unwrap())
    }

    fn now(&self) -> f64 {
        self.seen(|seen| seen.now)
    }

    /// Several answers at a time.
    async fn crowd(&self, prompts: &[Vec<TokenId>]) -> Vec<Vec<TokenId>> {
        self.gate.set(true);
        let mut asked = Vec::new();
        for prompt in prompts {
            asked.push(self.engine.generate(request(prompt, TOKENS)).await.unwrap());
        }
        self.gate.set(false);
        futures::future::join_all(asked.into_iter().map(|events| heard(events, TOKENS))).await
    }

    async fn answer(&self, prompt: &[TokenId], tokens: u32) -> Vec<TokenId> {
        let events = self.engine.generate(request(prompt, tokens)).await.unwrap();
        heard(events, tokens).await
    }
}

/// All tokens of an answer.
async fn heard(mut events: EventStream, tokens: u32) -> Vec<TokenId> {
    let mut answer = Vec::new();
    while let Some(event) = events.next().await {
        match event.unwrap() {
            Event::Delta { delta, .. } => answer.extend(delta.tokens),
            Event::Finished { reason, .. } => assert_eq!(reason, FinishReason::Length),
            _ => {}
        }
    }
    assert_eq!(answer.len(), tokens as usize);
    answer
}

fn request(prompt: &[TokenId], tokens: u32) -> Request {
    let mut request = Request::new("", Input::Tokens(prompt.to_vec()));
    request.sampling.temperature = 0.0;
    request.limits.max_tokens = Some(tokens);
    request.limits.ignore_eos = true;
    request
}

/// A prompt that begins like no other one.
fn prompt(seed: i32, tokens: i32) -> Vec<TokenId> {
    (0..tokens)
        .map(|i| (i * 37 + seed * 101 + 11) % 500)
        .collect()
}

/// The prompts with the surest answers, as many as there are slots.
async fn prompts() -> Vec<Vec<TokenId>> {
    let split = Split::new(Times::WHOLE, &[]);
    let mut found = Vec::new();
    for seed in 0..SEEDS {
        let prompt = prompt(seed, 5);
        let mut request = request(&prompt, TOKENS);
        request.logprobs = Some(2);
        let mut events = split.engine.generate(request).await.unwrap();
        let mut margin = f32::INFINITY;
        while let Some(event) = events.next().await {
            if let Event::Delta { delta, .. } = event.unwrap() {
                for token in delta.logprobs {
                    margin = margin.min(token.top[0].2 - token.top[1].2);
                }
            }
        }
        found.push((margin, prompt));
    }
    found.sort_by(|a, b| b.0.total_cmp(&a.0));
    found.truncate(SLOTS as usize);
    assert!(found.iter().all(|(margin, _)| *margin > MARGIN_MIN));
    found.into_iter().map(|(_, prompt)| prompt).collect()
}

#[tokio::test]
async fn several_streams_keep_all_parts_at_work() {
    let prompts = prompts().await;
    let split = Split::new(Times::SPLIT, &[]);
    let mut alone = Vec::new();
    for prompt in &prompts {
        alone.push(split.answer(prompt, TOKENS).await);
    }
    assert_eq!(split.seen(|seen| seen.in_flight_most), 1);
    let one_by_one = split.now();
    let crowd = Split::new(Times::SPLIT, &[]);
    // It knows what steps cost.
    crowd.answer(&prompts[0], TOKENS).await;
    let began = crowd.now();
    let answers = crowd.crowd(&prompts).await;
    let together = crowd.now() - began;
    assert_eq!(answers, alone);
    assert!(crowd.seen(|seen| seen.in_flight_most) > 2);
    // In one step for all it would be 0.7.
    assert!(
        together < 0.5 * one_by_one,
        "{together} ms instead of {one_by_one}"
    );
}

#[tokio::test]
async fn the_rows_of_a_prompt_are_in_all_parts_at_once() {
    let times = |times: Times| Times { row: 2.0, ..times };
    let whole = Split::new(times(Times::WHOLE), &[]);
    let wanted = whole.answer(&prompt(0, 512), 2).await;
    let split = Split::new(times(Times::SPLIT), &[]);
    let got = split.answer(&prompt(0, 512), 2).await;
    assert_eq!(got.len(), wanted.len());
    assert!(split.seen(|seen| seen.in_flight_most) > 2);
    assert!(split.seen(|seen| seen.rows_most) < 200);
    let (whole, split) = (whole.now(), split.now());
    assert!(split < 0.7 * whole, "{split} ms instead of {whole}");
}

#[tokio::test]
async fn streams_wait_no_longer_for_a_prompt_than_on_one_machine() {
    let mut gaps = Vec::new();
    for times in [Times::WHOLE, Times::SPLIT] {
        let times = Times {
            row: 5.0,
            step: 10.0,
            link: 0.0,
            ..times
        };
        let split = Split::new(times, &[]);
        // It knows what rows cost.
        split.answer(&prompt(7, 200), 2).await;
        split.seen.lock().unwrap().tokens.clear();
        let first = prompt(0, 5);
        let stream = split.answer(&first, 200);
        let joins = async {
            while split.seen(|seen| seen.tokens.is_empty()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let sequence = split.seen(|seen| *seen.tokens.keys().next().unwrap());
            split.answer(&prompt(1, 512), 2).await;
            split.seen(|seen| seen.tokens[&sequence].1)
        };
        let (_, gap) = futures::future::join(stream, joins).await;
        gaps.push(gap);
    }
    assert!(gaps[1] < 1.2 * gaps[0], "{gaps:?}");
}

#[tokio::test]
async fn steps_that_find_no_room_are_evaluated_again() {
    let troubles: Vec<(usize, Trouble)> = [9, 10, 23, 24, 25, 40, 60]
        .map(|step| (step, Trouble::NoRoom))
        .into();
    let prompts = prompts().await;
    let split = Split::new(Times::SPLIT, &troubles);
    let wanted = Split::new(Times::SPLIT, &[]).crowd(&prompts).await;
    // Whoever is sent back begins with its prompt and its answer in one step.
    let answers = split.crowd(&prompts).await;
    assert_eq!(answers, wanted);
    assert!(split.seen(|seen| seen.refused) >= troubles.len());
}

#[tokio::test]
async fn what_is_lost_in_flight_is_evaluated_again() {
    let troubles: Vec<(usize, Trouble)> = [2, 12, 31, 33].map(|step| (step, Trouble::Lost)).into();
    let prompts = prompts().await;
    let split = Split::new(Times::SPLIT, &troubles);
    let wanted = Split::new(Times::SPLIT, &[]).crowd(&prompts).await;
    assert_eq!(split.crowd(&prompts).await, wanted);
    assert!(split.seen(|seen| seen.in_flight_most) > 2);
}

#[tokio::test]
async fn a_stream_that_ends_in_flight_disturbs_no_other() {
    let prompts = prompts().await;
    let split = Split::new(Times::SPLIT, &[]);
    let wanted = split.crowd(&prompts).await;
    for round in 0..4_usize {
        let gone = async {
            let long = prompt(20 + round as i32, 300);
            let mut events = split.engine.generate(request(&long, TOKENS)).await.unwrap();
            for _ in 0..round {
                events.next().await;
            }
        };
        let three = split.crowd(&prompts[..3]);
        let (answers, ()) = futures::future::join(three, gone).await;
        assert_eq!(answers, wanted[..3]);
    }
    // All slots are free again, and nothing is left in flight.
    assert_eq!(split.crowd(&prompts).await, wanted);
    assert_eq!(split.seen(|seen| seen.in_flight), 0);
}

#[tokio::test]
async fn drafts_are_longer_on_a_long_way() {
    // A prompt that repeats itself, and an answer that does.
    let text: Vec<TokenId> = (0..60).map(|i| 3 + i % 3).collect();
    let mut steps = Vec::new();
    for link in [0.0, 200.0] {
        let times = Times {
            link,
            step: 10.0,
            row: 8.0,
            ..Times::SPLIT
        };
        let split = Split::with_draft(times, &[], Draft::Auto);
        split.answer(&text, 100).await;
        steps.push(split.seen(|seen| seen.steps));
    }
    assert!(steps[1] < steps[0], "{steps:?}");
}
