//! Layers that are arithmetic: what comes out depends on the rows, the layers, and on everything that
//! the KV cache should hold.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use gguf::Fingerprint;
use mesh::NodeId;
use split::fault::Refusal;
use split::layers::{LayerSource, Layers, LayersError, Loading, Rows};
use split::ring::{RingPlan, Seat};
use split::spec::{Precision, RingId, StageSpec};
use split::weights::Phase;

use crate::net::node;

pub(crate) const WIDTH: u32 = 8;
pub(crate) const MODEL: Fingerprint = Fingerprint([5; 32]);
pub(crate) const MIB: u64 = 1 << 20;
/// What a layer takes.
pub(crate) const LAYER_BYTES: u64 = 100 * MIB;
/// Room for four layers and their frames.
pub(crate) const BUDGET: u64 = 450 * MIB;

/// What goes wrong in a stage, from some call on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Trouble {
    WrongSize,
    NotANumber,
    Panic,
    Error,
}

/// Where a machine gets its layers from, and what it sees of them.
#[derive(Clone, Default)]
pub(crate) struct Fake {
    pub(crate) loads: Arc<AtomicU32>,
    /// Bytes of layers that are alive.
    pub(crate) bytes: Arc<AtomicU64>,
    /// After so many calls.
    pub(crate) trouble: Arc<Mutex<Option<(u32, Trouble)>>>,
    /// KV cells that there are less than promised: of so many; 0 for all.
    pub(crate) cells: Arc<AtomicU32>,
    /// Calls in all.
    pub(crate) calls: Arc<AtomicU32>,
    /// What a stage takes beyond its layers and its cache.
    pub(crate) more_bytes: Arc<AtomicU64>,
}

impl Fake {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::SeqCst)
    }

    pub(crate) fn loads(&self) -> u32 {
        self.loads.load(Ordering::SeqCst)
    }

    pub(crate) fn trouble(&self, calls: u32, trouble: Trouble) {
        *self.trouble.lock().unwrap() = Some((calls, trouble));
    }
}

impl LayerSource for Fake {
    fn needed_bytes(&self, _: NodeId, spec: &StageSpec) -> Result<u64, Refusal> {
        if spec.model != MODEL {
            return Err(Refusal::NoModel {
                text: "no such model here".into(),
            });
        }
        let layers = u64::from(spec.layer_count()) * LAYER_BYTES;
        let cache = u64::from(spec.kv_tokens) * 1_024;
        Ok(layers + cache + self.more_bytes.load(Ordering::SeqCst))
    }

    fn load(
        &self,
        _: NodeId,
        spec: &StageSpec,
        progress: &mut dyn FnMut(Loading) -> bool,
    ) -> Result<Box<dyn Layers>, String> {
        if !progress(Loading::of(Phase::Cutting, 1, 2)) {
            return Err("given up".into());
        }
        self.loads.fetch_add(1, Ordering::SeqCst);
        let bytes = u64::from(spec.layer_count()) * LAYER_BYTES;
        self.bytes.fetch_add(bytes, Ordering::SeqCst);
        Ok(Box::new(Sums {
            fake: self.clone(),
            spec: spec.clone(),
            held: BTreeMap::new(),
            bytes,
        }))
    }
}

/// The layers of one stage.
pub(crate) struct Sums {
    fake: Fake,
    spec: StageSpec,
    /// For each sequence what each position left behind in each layer.
    held: BTreeMap<u32, Vec<Vec<f32>>>,
    bytes: u64,
}

impl Sums {
    /// Layers in this process, to compare with.
    pub(crate) fn local(spec: StageSpec) -> Self {
        Self {
            fake: Fake::default(),
            spec,
            held: BTreeMap::new(),
            bytes: 0,
        }
    }

    fn cells(&self) -> usize {
        self.held.values().map(Vec::len).sum()
    }
}

impl Drop for Sums {
    fn drop(&mut self) {
        self.fake.bytes.fetch_sub(self.bytes, Ordering::SeqCst);
    }
}

impl Layers for Sums {
    fn run(&mut self, rows: &Rows<'_>, out: &mut Vec<f32>) -> Result<(), LayersError> {
        let calls = self.fake.calls.fetch_add(1, Ordering::SeqCst);
        let trouble = *self.fake.trouble.lock().unwrap();
        let trouble = trouble.filter(|(from, _)| calls >= *from).map(|(_, t)| t);
        match trouble {
            Some(Trouble::Error) => return Err(LayersError::Failed("out of order".into())),
            Some(Trouble::Panic) => panic!("a bug of the layers"),
            _ => {}
        }
        let cells = match self.fake.cells.load(Ordering::SeqCst) {
            0 => self.spec.kv_tokens,
            cells => cells,
        };
        if self.cells() + rows.positions.len() > cells as usize {
            return Err(LayersError::NoRoom);
        }
        out.clear();
        let each = rows.hidden.chunks(WIDTH as usize);
        for ((row, &position), &sequence) in each.zip(rows.positions).zip(rows.sequences) {
            let held = self.held.entry(sequence.unsigned_abs()).or_default();
            if held.len() != position.unsigned_abs() as usize {
                let text = format!("{position} after {}", held.len());
                return Err(LayersError::Input(text));
            }
            let mut row = row.to_vec();
            let mut left = Vec::new();
            for (index, layer) in self.spec.layers.clone().enumerate() {
                let before: f32 = held.iter().map(|layers| layers[index]).sum();
                for value in &mut row {
                    *value = *value * 0.75 + layer as f32 * 0.01 + before * 0.001;
                }
                left.push(row.iter().sum());
            }
            held.push(left);
            out.extend(row);
        }
        match trouble {
            Some(Trouble::WrongSize) => out.push(0.0),
            Some(Trouble::NotANumber) => out[0] = f32::NAN,
            _ => {}
        }
        Ok(())
    }

    fn copy(&mut self, from: u32, to: u32, tokens: u32) -> Result<(), LayersError> {
        let mut held = self.held.get(&from).cloned().unwrap_or_default();
        held.truncate(tokens as usize);
        self.held.insert(to, held);
        Ok(())
    }

    fn cut(&mut self, sequence: u32, from: u32) -> Result<(), LayersError> {
        let held = self.held.entry(sequence).or_default();
        held.truncate(from as usize);
        Ok(())
    }

    fn clear(&mut self) {
        self.held.clear();
    }

    fn width(&self) -> u32 {
        WIDTH
    }

    fn kv_tokens(&self) -> u32 {
        self.spec.kv_tokens
    }

    fn is_recurrent(&self) -> bool {
        false
    }
}

/// A ring over workers 1 to `workers`, two layers each.
pub(crate) fn plan(ring: u8, epoch: u32, workers: u8) -> RingPlan {
    let seat = |worker: u8| Seat {
        node: node(worker),
        layers: u32::from(worker - 1) * 2..u32::from(worker) * 2,
    };
    RingPlan {
        ring: RingId([ring; 16]),
        epoch,
        model: MODEL,
        workers: (1..=workers).map(seat).collect(),
        width: WIDTH,
        kv_tokens: 256,
        sequences: 4,
        rows_max: 64,
        precision: Precision::F32,
        lease: std::time::Duration::from_secs(30),
        load_max: std::time::Duration::from_secs(60),
    }
}

/// All layers of the plan in one.
pub(crate) fn whole(plan: &RingPlan) -> Sums {
    Sums::local(StageSpec {
        model: MODEL,
        layers: 0..plan.workers.last().unwrap().layers.end,
        width: WIDTH,
        kv_tokens: plan.kv_tokens,
        sequences: plan.sequences,
        rows_max: plan.rows_max,
    })
}

/// Rows of one sequence.
#[derive(Clone)]
pub(crate) struct Batch {
    pub(crate) hidden: Vec<f32>,
    pub(crate) positions: Vec<i32>,
    pub(crate) sequences: Vec<i32>,
}

impl Batch {
    pub(crate) fn new(sequence: i32, from: i32, rows: i32) -> Self {
        let values = rows * WIDTH as i32;
        Self {
            hidden: (0..values)
                .map(|i| ((i * 37 + from * 11 + sequence) % 19) as f32 * 0.1)
                .collect(),
            positions: (from..from + rows).collect(),
            sequences: vec![sequence; rows as usize],
        }
    }

    pub(crate) fn rows(&self) -> Rows<'_> {
        Rows {
            hidden: &self.hidden,
            positions: &self.positions,
            sequences: &self.sequences,
        }
    }
}
