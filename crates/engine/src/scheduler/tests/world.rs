//! A simulated KV cache that checks what is done to it, a model over it, and jobs that come and go.

use std::collections::{BTreeMap, VecDeque};

use super::super::*;

/// The next token of the simulated model.
pub(super) fn next(tokens: &[TokenId]) -> TokenId {
    let mix = |h: u64, t: &TokenId| h.wrapping_mul(6_364_136_223_846_793_005) ^ (*t as u64 + 1);
    ((tokens.iter().fold(7, mix) >> 7) % 5) as TokenId
}

pub(super) fn alone(prompt: &[TokenId], count: usize) -> Vec<TokenId> {
    let mut tokens = prompt.to_vec();
    for _ in 0..count {
        tokens.push(next(&tokens));
    }
    tokens.split_off(prompt.len())
}

/// A KV cache that checks what is done to it. Cells are shared by reference count, as in unified
/// llama.cpp caches.
pub(super) struct Kv {
    pub(super) cells: BTreeMap<(usize, usize), usize>,
    pub(super) sequences: Vec<Vec<(TokenId, usize)>>,
    pub(super) stored: BTreeMap<StoreId, Vec<TokenId>>,
    /// Where sequences lack rows that found no room.
    pub(super) gaps: BTreeMap<usize, usize>,
    pub(super) next_cell: usize,
    pub(super) capacity: usize,
}

impl Kv {
    pub(super) fn new(sequences: usize, capacity: usize) -> Self {
        Self {
            cells: BTreeMap::new(),
            sequences: vec![vec![]; sequences],
            stored: BTreeMap::new(),
            gaps: BTreeMap::new(),
            next_cell: 0,
            capacity,
        }
    }

    pub(super) fn used(&self) -> usize {
        let mut ids: Vec<usize> = self.sequences.iter().flatten().map(|(_, c)| *c).collect();
        ids.sort_unstable();
        ids.dedup();
        ids.len()
    }

    /// False: a stored prefix does not fit.
    #[must_use]
    pub(super) fn apply(&mut self, op: CacheOp) -> bool {
        match op {
            CacheOp::Save { from, to } => {
                let tokens = self.prefix(from, self.sequences[from].len());
                assert!(self.stored.insert(to, tokens).is_none(), "saved twice");
            }
            CacheOp::Load { from, to } => {
                assert!(self.sequences[to].is_empty(), "load into a used sequence");
                let tokens = self.stored[&from].clone();
                if self.used() + tokens.len() > self.capacity {
                    return false;
                }
                let cells = self.next_cell..;
                self.next_cell += tokens.len();
                self.sequences[to] = tokens.into_iter().zip(cells).collect();
            }
            CacheOp::Drop { store } => {
                assert!(self.stored.remove(&store).is_some(), "dropped twice");
            }
            CacheOp::Copy { from, to, tokens } => {
                assert!(self.sequences[to].is_empty(), "copy into a used sequence");
                assert!(
                    self.sequences[from].len() >= tokens,
                    "copy of what is not there"
                );
                assert!(self.gaps.get(&from).is_none_or(|gap| tokens <= *gap));
                self.sequences[to] = self.sequences[from][..tokens].to_vec();
            }
            CacheOp::Cut { sequence, from } => {
                assert!(from <= self.sequences[sequence].len(), "cut beyond the end");
                self.sequences[sequence].truncate(from);
                if self.gaps.get(&sequence).is_some_and(|gap| from <= *gap) {
                    self.gaps.remove(&sequence);
                }
            }
        }
        true
    }

    /// Evaluates the rows, or changes nothing if they don't fit, or follow others that did not.
    pub(super) fn evaluate(&mut self, rows: &[Row]) -> bool {
        let follows_gap = rows.iter().any(|row| self.gaps.contains_key(&row.sequence));
        if follows_gap || self.used() + rows.len() > self.capacity {
            for row in rows {
                self.gaps.entry(row.sequence).or_insert(row.position);
            }
            return false;
        }
        for row in rows {
            let sequence = &mut self.sequences[row.sequence];
            assert_eq!(
                sequence.len(),
                row.position,
                "a row must continue its sequence"
            );
            sequence.push((row.token, self.next_cell));
            self.cells
                .insert((row.sequence, row.position), self.next_cell);
            self.next_cell += 1;
        }
        true
    }

    pub(super) fn prefix(&self, sequence: usize, length: usize) -> Vec<TokenId> {
        self.sequences[sequence][..length]
            .iter()
            .map(|(t, _)| *t)
            .collect()
    }
}

#[derive(Debug, Clone)]
pub(super) struct Wish {
    pub(super) prompt: Vec<TokenId>,
    pub(super) count: usize,
    pub(super) arrives: usize,
    pub(super) cancelled_at: Option<usize>,
    /// When its consumer reads nothing: from, until, and since when that is long.
    pub(super) stalled: Option<(usize, usize, usize)>,
    pub(super) reuse: bool,
}

impl Wish {
    pub(super) fn stall(&self, time: usize) -> Stall {
        match self.stalled {
            Some((from, until, long)) if (from..until).contains(&time) => {
                if time >= long {
                    Stall::Long
                } else {
                    Stall::Short
                }
            }
            _ => Stall::None,
        }
    }
}

/// How steps follow each other.
#[derive(Debug, Clone)]
pub(super) struct Traffic {
    /// Most steps in flight.
    pub(super) depth: usize,
    /// Jobs that a step decodes.
    pub(super) jobs: usize,
    /// Cells that the first of two stages has more than the second; `None`: there is one stage.
    pub(super) spare: Option<usize>,
    /// How many steps come back at a time, over and over.
    pub(super) returns: Vec<usize>,
    /// When what is in flight is lost, and how many of a hundred positions of each running job are not.
    pub(super) lost_at: Vec<(usize, usize)>,
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            depth: 1,
            jobs: usize::MAX,
            spare: None,
            returns: vec![1],
            lost_at: Vec::new(),
        }
    }
}

/// A step in flight.
pub(super) struct Flight {
    pub(super) step: Step,
    /// What its jobs draw; `None`: a stage had no room.
    pub(super) drawn: Option<BTreeMap<JobKey, Vec<TokenId>>>,
    pub(super) releases: u64,
}

pub(super) struct World {
    pub(super) scheduler: Scheduler,
    /// What happens in the first one has happened before the second one's turn.
    pub(super) stages: Vec<Kv>,
    pub(super) flights: VecDeque<Flight>,
    pub(super) traffic: Traffic,
    pub(super) limits: Limits,
    pub(super) drafts: bool,
    pub(super) outputs: BTreeMap<JobKey, Vec<TokenId>>,
    /// What the kept logits give.
    pub(super) kept: BTreeMap<RecallId, TokenId>,
    pub(super) rows_total: usize,
    /// Most steps that were in flight.
    pub(super) flights_most: usize,
}

impl World {
    pub(super) fn new(limits: Limits, drafts: bool) -> Self {
        Self::with_traffic(limits, drafts, Traffic::default())
    }

    pub(super) fn with_traffic(limits: Limits, drafts: bool, traffic: Traffic) -> Self {
        let stage = |spare: usize| Kv::new(limits.sequences, limits.kv_tokens + spare);
        Self {
            scheduler: Scheduler::new(limits),
            stages: traffic.spare.into_iter().chain([0]).map(stage).collect(),
            flights: VecDeque::new(),
            traffic,
            limits,
            drafts,
            outputs: BTreeMap::new(),
            kept: BTreeMap::new(),
            rows_total: 0,
            flights_most: 0,
        }
    }

    pub(super) fn kv(&self) -> &Kv {
        self.stages.last().unwrap()
    }

    /// Sends what may be in flight, until a step has come back.
    pub(super) fn step(&mut self, wishes: &[Wish], budget: Budget) {
        for _ in 0..=2 * self.limits.sequences {
            self.send(wishes, budget);
            let Some(flight) = self.flights.pop_front() else {
                return;
            };
            if self.receive(flight, wishes) {
                return;
            }
        }
        panic!("admits and sends back for ever");
    }

    pub(super) fn send(&mut self, wishes: &[Wish], budget: Budget) {
        while self.flights.len() < self.traffic.depth {
            let budget = Budget {
                jobs: self.traffic.jobs,
                ..budget
            };
            self.draft(wishes, budget.jobs);
            let step = self.scheduler.plan(budget);
            assert!(
                step.rows.len() <= self.limits.batch_tokens,
                "batch too large"
            );
            if !self.apply(&step.ops) {
                continue;
            }
            let stored = self.kv().stored.values().map(Vec::len).sum::<usize>();
            assert!(
                stored <= self.limits.stored_tokens,
                "{stored} tokens are stored"
            );
            for (key, id) in &step.recalled {
                assert!(step.rows.iter().all(|row| row.key != *key));
                let first = self.kept[id];
                self.take(*key, vec![first], &wishes[*key as usize]);
            }
            if step.rows.is_empty() {
                if step.recalled.is_empty() {
                    break;
                }
                continue;
            }
            let outputs = |step: &Step| -> Vec<JobKey> {
                let outputs = step.rows.iter().filter(|r| r.output);
                outputs.map(|r| r.key).collect()
            };
            let before = self.flights.iter().flat_map(|f| outputs(&f.step));
            let before: Vec<JobKey> = before.collect();
            for row in &step.rows {
                assert!(!before.contains(&row.key), "its token is not known yet");
            }
            let mut left = step.decode_rows();
            let decoding = step.jobs().take_while(|rows| {
                let decodes = left > 0;
                left = left.saturating_sub(rows.len());
                decodes
            });
            assert!(decoding.count() <= self.traffic.jobs);
            let drawn = self.evaluate(&step);
            self.flights.push_back(Flight {
                step,
                drawn,
                releases: self.scheduler.releases(),
            });
            self.flights_most = self.flights_most.max(self.flights.len());
        }
    }

    /// The stages one after the other; the first that has no room stops the rest.
    pub(super) fn evaluate(&mut self, step: &Step) -> Option<BTreeMap<JobKey, Vec<TokenId>>> {
        let fits = self.stages.iter_mut().all(|kv| kv.evaluate(&step.rows));
        fits.then(|| {
            let outputs = step.jobs().filter(|rows| rows.iter().any(|r| r.output));
            outputs
                .map(|rows| (rows[0].key, self.drawn(rows)))
                .collect()
        })
    }

    pub(super) fn drawn(&self, rows: &[Row]) -> Vec<TokenId> {
        let rows: Vec<&Row> = rows.iter().filter(|r| r.output).collect();
        let mut drawn = vec![];
        for (index, row) in rows.iter().enumerate() {
            let token = next(&self.kv().prefix(row.sequence, row.position + 1));
            drawn.push(token);
            if rows.get(index + 1).is_some_and(|r| r.token != token) {
                break;
            }
        }
        drawn
    }

    /// As the decode loop does it: false if there was no room.
    pub(super) fn receive(&mut self, flight: Flight, wishes: &[Wish]) -> bool {
        let Flight {
            step,
            drawn,
            releases,
        } = flight;
        if let Some(drawn) = drawn {
            self.rows_total += step.rows.len();
            self.scheduler.commit(&step);
            for (key, drawn) in drawn {
                if let Some(Keep { id, gone }) = self.scheduler.keep_logits(key) {
                    self.kept.retain(|id, _| !gone.contains(id));
                    assert!(self.kept.insert(id, drawn[0]).is_none(), "kept twice");
                    assert!(self.kept.len() <= self.limits.logits_kept);
                }
                self.take(key, drawn, &wishes[key as usize]);
            }
            return true;
        }
        let ops = self.scheduler.take_back(&step);
        assert!(self.apply(&ops), "taking back loads nothing");
        while let Some(flight) = self.flights.pop_front() {
            let Flight { step, drawn, .. } = flight;
            match drawn {
                Some(_) => {
                    let releases = self.scheduler.releases();
                    assert!(self.receive(
                        Flight {
                            step,
                            drawn,
                            releases
                        },
                        wishes
                    ));
                }
                None => {
                    let ops = self.scheduler.take_back(&step);
                    assert!(self.apply(&ops), "taking back loads nothing");
                }
            }
        }
        if self.scheduler.releases() == releases {
            let ops = self.scheduler.relieve();
            assert!(!ops.is_empty(), "one job must fit alone");
            assert!(self.apply(&ops), "relieving loads nothing");
        }
        false
    }

    pub(super) fn draft(&mut self, wishes: &[Wish], jobs: usize) {
        if !self.drafts {
            return;
        }
        for key in self.scheduler.due(jobs) {
            let tokens = self.scheduler.tokens(key).unwrap().to_vec();
            // A right draft, then a wrong one.
            let mut draft = alone(&tokens, 2);
            draft.push(if key % 2 == 0 { 4 } else { 0 });
            let room = (wishes[key as usize].prompt.len() + wishes[key as usize].count)
                .saturating_sub(tokens.len() + 1);
            draft.truncate(room);
            self.scheduler.set_draft(key, draft);
        }
    }

    /// As the decode loop does it: false if the plan does not hold any more.
    pub(super) fn apply(&mut self, ops: &[CacheOp]) -> bool {
        for op in ops {
            for stage in 0..self.stages.len() {
                self.check(*op, &self.stages[stage]);
                if !self.stages[stage].apply(*op) {
                    assert!(matches!(op, CacheOp::Load { .. }));
                    self.forget();
                    self.scheduler.load_failed();
                    return false;
                }
            }
        }
        true
    }

    /// Recurrent memory is copied and forgotten as a whole.
    pub(super) fn check(&self, op: CacheOp, stage: &Kv) {
        let held = |sequence: SequenceId| stage.sequences[sequence].len();
        match op {
            _ if self.limits.can_cut => {}
            CacheOp::Copy { from, tokens, .. } => assert_eq!(tokens, held(from)),
            CacheOp::Cut { sequence, from } => assert!(from == 0 || from == held(sequence)),
            _ => {}
        }
    }

    /// Everything outside the scheduler.
    pub(super) fn forget(&mut self) {
        self.flights.clear();
        for kv in &mut self.stages {
            *kv = Kv::new(self.limits.sequences, kv.capacity);
        }
    }

    pub(super) fn lose(&mut self, kept_percent: usize) {
        self.flights.clear();
        let mut held = self.scheduler.held();
        for (sequence, held) in held.iter_mut().enumerate() {
            *held = u32::try_from(*held as usize * kept_percent / 100).unwrap();
            // Recurrent memory is there as a whole or not at all.
            let is_whole = |kv: &Kv| kv.sequences[sequence].len() == *held as usize;
            if !self.limits.can_cut && !self.stages.iter().all(is_whole) {
                *held = 0;
            }
        }
        for kv in &mut self.stages {
            kv.gaps.clear();
            for (sequence, held) in kv.sequences.iter_mut().zip(&held) {
                assert!(sequence.len() >= *held as usize, "it holds less than that");
                sequence.truncate(*held as usize);
            }
        }
        self.scheduler.forget_but(&held);
    }

    pub(super) fn take(&mut self, key: JobKey, mut sampled: Vec<TokenId>, wish: &Wish) {
        if self.scheduler.tokens(key).is_none() {
            // It was cancelled meanwhile.
            return;
        }
        let output = self.outputs.entry(key).or_default();
        sampled.truncate(wish.count - output.len());
        output.extend(&sampled);
        let done = output.len() == wish.count;
        let ops = self.scheduler.advance(key, &sampled);
        assert!(self.apply(ops.as_slice()));
        if done {
            let ops = self.scheduler.finish(key);
            assert!(self.apply(ops.as_slice()));
        }
    }
}

pub(super) fn run(limits: Limits, drafts: bool, wishes: &[Wish]) -> World {
    run_with(limits, drafts, wishes, Traffic::default())
}

pub(super) fn run_with(limits: Limits, drafts: bool, wishes: &[Wish], traffic: Traffic) -> World {
    let mut world = World::with_traffic(limits, drafts, traffic.clone());
    let budget = Budget {
        jobs: usize::MAX,
        beside_decoding: 5,
        alone: 12,
    };
    // Far more steps than any schedule needs: a job that never ends fails the test.
    let steps_max = 200
        + wishes
            .iter()
            .map(|w| 40 * (w.prompt.len() + w.count))
            .sum::<usize>();
    for time in 0..steps_max {
        for (key, wish) in wishes.iter().enumerate() {
            if wish.arrives == time {
                world
                    .scheduler
                    .submit(key as JobKey, wish.prompt.clone(), wish.reuse);
            }
            if wish.cancelled_at == Some(time) {
                let ops = world.scheduler.finish(key as JobKey);
                assert!(world.apply(ops.as_slice()));
            }
        }
        for (key, wish) in wishes.iter().enumerate() {
            world.scheduler.set_stall(key as JobKey, wish.stall(time));
        }
        for (_, kept_percent) in traffic.lost_at.iter().filter(|(at, _)| *at == time) {
            world.lose(*kept_percent);
        }
        match traffic.returns[time % traffic.returns.len()] {
            0 => world.send(wishes, budget),
            returns => (0..returns).for_each(|_| world.step(wishes, budget)),
        }
        if time > 80 && world.scheduler.is_idle() && world.flights.is_empty() {
            break;
        }
    }
    assert!(world.scheduler.is_idle(), "jobs left over");
    for (key, wish) in wishes.iter().enumerate() {
        let expected = alone(&wish.prompt, wish.count);
        let output = world.outputs.remove(&(key as JobKey)).unwrap_or_default();
        match wish.cancelled_at {
            None => assert_eq!(output, expected, "job {key}"),
            Some(_) => assert_eq!(output, expected[..output.len()], "job {key}"),
        }
    }
    world
}
