//! A real model over a ring of real stages: bit for bit what it gives in one piece.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use engine::stage::{
    EmbeddingTable, LocalStages, Pipeline, StageOptions, StageRunner, Stages, Tail, memory_needed,
};
use gguf::{LayerMap, Model, SliceRole};
use mesh::NodeId;
use split::fault::Refusal;
use split::layers::{LayerSource, Layers, Loading};
use split::ring::{RingPlan, Seat};
use split::spec::{Precision, RingId, StageSpec};
use split::station::{Offer, Station};
use testkit::model::{self, Architecture, ModelSpec};

use crate::net::{Link, Net, node};

fn options() -> StageOptions {
    StageOptions {
        kv_tokens: 512,
        sequences: 4,
        rows_max: 48,
        outputs_max: 48,
        threads: Some(1),
        gpu_layers: None,
        device: None,
    }
}

/// Slices of one model, by their first layer.
struct Files(BTreeMap<u32, PathBuf>);

impl LayerSource for Files {
    fn needed_bytes(&self, _: NodeId, spec: &StageSpec) -> Result<u64, Refusal> {
        let no_model = |text: String| Refusal::NoModel { text };
        let path = self.0.get(&spec.layers.start);
        let path = path.ok_or_else(|| no_model("no such slice".to_owned()))?;
        let memory = memory_needed(path, &options()).map_err(|e| no_model(e.to_string()))?;
        Ok(memory.total())
    }

    fn load(
        &self,
        _: NodeId,
        spec: &StageSpec,
        _: &mut dyn FnMut(Loading) -> bool,
    ) -> Result<Box<dyn Layers>, String> {
        let runner = StageRunner::open(&self.0[&spec.layers.start], &options());
        Ok(Box::new(runner.map_err(|error| error.to_string())?))
    }
}

fn slice(model: &Model, layers: Range<u32>, role: SliceRole, folder: &Path) -> PathBuf {
    let path = folder.join(format!("{}-{}.gguf", layers.start, layers.end));
    let plan = LayerMap::of(model).unwrap().plan(layers, role).unwrap();
    let sources = model.open_sources().unwrap();
    let file = File::create(&path).unwrap();
    plan.write(&sources, file, |_| true).unwrap();
    path
}

fn pipeline(whole: &Path, stages: Box<dyn Stages>, tail: &Path) -> Pipeline {
    let tail = Tail::open(tail, &options()).unwrap();
    Pipeline::new(EmbeddingTable::open(whole).unwrap(), stages, tail).unwrap()
}

fn best(logits: &[f32]) -> i32 {
    let best = (0..).zip(logits).max_by(|(_, a), (_, b)| a.total_cmp(b));
    best.unwrap().0
}

/// Prompts, greedy tokens, a copy and a cut; gives all logits.
fn transcript(pipeline: &mut Pipeline, vocabulary: i32) -> Vec<Vec<u32>> {
    let mut seen = Vec::new();
    let mut step = |pipeline: &mut Pipeline, sequence: i32, from: i32, tokens: &[i32]| {
        let rows = tokens.len() as i32;
        let positions: Vec<i32> = (from..from + rows).collect();
        let mut outputs = vec![false; tokens.len()];
        *outputs.last_mut().unwrap() = true;
        let sequences = vec![sequence; tokens.len()];
        pipeline
            .run(tokens, &positions, &sequences, &outputs)
            .unwrap();
        let logits = pipeline.logits(tokens.len() - 1).unwrap();
        seen.push(logits.iter().map(|value| value.to_bits()).collect());
        best(logits)
    };
    let prompt: Vec<i32> = (0..40).map(|i| (i * 37 + 11) % vocabulary).collect();
    let mut token = step(pipeline, 0, 0, &prompt);
    for position in 40..60 {
        token = step(pipeline, 0, position, &[token]);
    }
    pipeline.copy(0, 1, 50).unwrap();
    pipeline.cut(0, 45).unwrap();
    let mut tokens = [3, 4];
    for (position, other) in (50..60).zip(45..) {
        tokens[1] = step(pipeline, 1, position, &[tokens[1]]);
        tokens[0] = step(pipeline, 0, other, &[tokens[0]]);
    }
    seen
}

/// Four sequences, each with a prompt in two parts and greedy tokens; `depth` steps are in flight. Gives the
/// logits of each sequence.
fn streams(pipeline: &mut Pipeline, vocabulary: i32, depth: usize) -> Vec<Vec<Vec<u32>>> {
    struct Flight {
        positions: Vec<i32>,
        sequences: Vec<i32>,
        outputs: Vec<bool>,
    }
    let mut streams: Vec<Vec<Vec<u32>>> = vec![Vec::new(); 4];
    let mut flights: VecDeque<Flight> = VecDeque::new();
    let mut due: VecDeque<(i32, i32, Vec<i32>)> = VecDeque::new();
    for sequence in 0..4 {
        let prompt: Vec<i32> = (0..30)
            .map(|i| (i * 37 + sequence * 101) % vocabulary)
            .collect();
        due.push_back((sequence, 0, prompt[..20].to_vec()));
        due.push_back((sequence, 20, prompt[20..].to_vec()));
    }
    while !due.is_empty() || !flights.is_empty() {
        while flights.len() < depth
            && let Some((sequence, from, tokens)) = due.pop_front()
        {
            let rows = tokens.len();
            let flight = Flight {
                positions: (from..from + rows as i32).collect(),
                sequences: vec![sequence; rows],
                outputs: (0..rows).map(|row| row + 1 == rows).collect(),
            };
            pipeline
                .submit(&tokens, &flight.positions, &flight.sequences)
                .unwrap();
            flights.push_back(flight);
        }
        let flight = flights.pop_front().unwrap();
        pipeline
            .receive(&flight.positions, &flight.sequences, &flight.outputs)
            .unwrap();
        let logits = pipeline.logits(flight.positions.len() - 1).unwrap();
        let (sequence, next) = (
            flight.sequences[0],
            flight.positions[0] + flight.positions.len() as i32,
        );
        if next >= 30 {
            streams[sequence as usize].push(logits.iter().map(|value| value.to_bits()).collect());
            if next < 42 {
                due.push_back((sequence, next, vec![best(logits)]));
            }
        }
    }
    streams
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_over_a_ring_gives_the_bits_of_the_whole() {
    let spec = ModelSpec {
        layers: 7,
        ..ModelSpec::tiny(Architecture::Llama)
    };
    gives_the_bits_of_the_whole(spec, [0..2, 2..5], true).await;
}

/// Its sequences can't be cut back: what they have read is one state.
#[tokio::test(flavor = "multi_thread")]
async fn a_hybrid_over_a_ring_gives_the_bits_of_the_whole() {
    let spec = ModelSpec {
        layers: 8,
        ..ModelSpec::tiny(Architecture::Qwen35)
    };
    gives_the_bits_of_the_whole(spec, [0..2, 2..4], false).await;
}

/// Two workers with these layers and a host with the rest, compared with one machine.
async fn gives_the_bits_of_the_whole(spec: ModelSpec, layers: [Range<u32>; 2], can_cut: bool) {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole.gguf");
    model::write(&spec, &whole).unwrap();
    let gguf = Model::open(&whole).unwrap();
    let end = spec.layers;
    let all = slice(&gguf, 0..end, SliceRole::Tail, folder.path());
    let tail = slice(&gguf, layers[1].end..end, SliceRole::Tail, folder.path());
    let files = layers.clone().map(|layers| {
        let path = slice(&gguf, layers.clone(), SliceRole::Stage, folder.path());
        (layers.start, path)
    });
    let files = Arc::new(Files(files.into()));

    let net = Net::default();
    let host = net.station(0, None);
    let workers: Vec<_> = [1, 2]
        .map(|number| {
            let source: Arc<dyn LayerSource> = Arc::clone(&files) as _;
            let offer = Offer {
                source,
                budget_bytes: 1 << 30,
            };
            let station = Station::new(node(number), net.transport(number), Some(offer));
            net.add_station(number, &station);
            station
        })
        .into();
    let plan = RingPlan {
        ring: RingId([3; 16]),
        epoch: 1,
        model: gguf.fingerprint(),
        workers: [1, 2]
            .into_iter()
            .zip(layers)
            .map(|(number, layers)| Seat {
                node: node(number),
                layers,
            })
            .collect(),
        width: gguf.metadata().embedding_length().unwrap(),
        kv_tokens: options().kv_tokens,
        sequences: options().sequences,
        rows_max: options().rows_max,
        precision: Precision::F32,
        lease: Duration::from_secs(30),
        load_max: Duration::from_secs(60),
    };
    let ring = host.raise(plan, &mut |_, _| {}).await.unwrap();
    let vocabulary = spec.vocab as i32;
    let lost = net.clone();
    let compare = move || {
        let mut one = pipeline(&whole, Box::new(LocalStages::new(Vec::new())), &all);
        let mut split = pipeline(&whole, Box::new(ring), &tail);
        if can_cut {
            let wanted = transcript(&mut one, vocabulary);
            assert_eq!(transcript(&mut split, vocabulary), wanted);
            // The same once more, after everything was forgotten.
            split.clear().unwrap();
            assert_eq!(transcript(&mut split, vocabulary), wanted);
        }
        // Several streams at a time, each of which says what it says when the others wait.
        one.clear().unwrap();
        let wanted = streams(&mut one, vocabulary, 1);
        for depth in [1, 3, 5] {
            split.clear().unwrap();
            assert_eq!(streams(&mut split, vocabulary, depth), wanted);
        }
        assert_eq!(split.cut(0, 5).is_ok(), can_cut);
        lost.set(2, Link::Cut);
        split
            .clear()
            .and_then(|()| split.run(&[1], &[0], &[0], &[true]))
            .unwrap_err()
    };
    let error = tokio::task::spawn_blocking(compare).await.unwrap();
    assert!(error.to_string().contains("lost"), "{error}");
    for station in workers.iter().chain([&host]) {
        station.close().await;
    }
}
