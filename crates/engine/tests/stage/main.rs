//! Split and whole models give the same bits, for every architecture that may be split.
#![cfg(feature = "solo")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod features;
mod flight;
mod generation;
mod made_up;
mod refusals;
mod slices;
mod transcript;

use std::path::Path;

use engine::stage::{EmbeddingTable, LocalStages, Pipeline, StageOptions, StageRunner, Tail};
use llama::{Batch, Context, ContextParams, KvType, Model, ModelParams};
use slices::Slices;
use testkit::model::{self, Architecture, ModelSpec, WeightType};
use transcript::{KV_TOKENS, Op, ROWS_MAX, Row, SEQUENCES, Subject, Transcript};

pub(crate) fn options() -> StageOptions {
    StageOptions {
        kv_tokens: KV_TOKENS,
        sequences: SEQUENCES,
        rows_max: ROWS_MAX,
        outputs_max: ROWS_MAX,
        threads: Some(1),
        gpu_layers: None,
        device: None,
    }
}

impl Subject for Context {
    fn run(&mut self, rows: &[Row]) -> Vec<Vec<f32>> {
        let mut batch = Batch::new();
        for row in rows {
            batch.push(row.token, row.position, row.sequence, row.output);
        }
        self.decode(&mut batch).unwrap();
        let outputs = rows.iter().enumerate().filter(|(_, r)| r.output);
        outputs
            .map(|(i, _)| self.logits(i).unwrap().to_vec())
            .collect()
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Copy { from, to, tokens } => {
                self.sequence_copy(from as i32, to as i32, tokens as i32);
            }
            Op::Cut { sequence, from } => {
                assert!(self.sequence_remove(sequence as i32, from as i32, None));
            }
        }
    }
}

impl Subject for Pipeline {
    fn run(&mut self, rows: &[Row]) -> Vec<Vec<f32>> {
        let tokens: Vec<i32> = rows.iter().map(|r| r.token).collect();
        let positions: Vec<i32> = rows.iter().map(|r| r.position).collect();
        let sequences: Vec<i32> = rows.iter().map(|r| r.sequence).collect();
        let outputs: Vec<bool> = rows.iter().map(|r| r.output).collect();
        Self::run(self, &tokens, &positions, &sequences, &outputs).unwrap();
        let outputs = rows.iter().enumerate().filter(|(_, r)| r.output);
        outputs
            .map(|(i, _)| self.logits(i).unwrap().to_vec())
            .collect()
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Copy { from, to, tokens } => self.copy(from, to, tokens).unwrap(),
            Op::Cut { sequence, from } => self.cut(sequence, from).unwrap(),
        }
    }
}

/// All parts, in this process.
pub(crate) fn pipeline(slices: &Slices, options: &StageOptions) -> Pipeline {
    let (tail, stages) = slices.parts.split_last().unwrap();
    let open = |path: &std::path::PathBuf| StageRunner::open(path, options).unwrap();
    let stages: Vec<StageRunner> = stages.iter().map(open).collect();
    let embedding = EmbeddingTable::open(&slices.whole).unwrap();
    let tail = Tail::open(tail, options).unwrap();
    Pipeline::new(embedding, Box::new(LocalStages::new(stages)), tail).unwrap()
}

fn whole(path: &Path, keep_layout: bool) -> Context {
    let params = ModelParams {
        // As the engine loads it.
        keep_layout,
        ..ModelParams::default()
    };
    let model = Model::load(&[path.to_path_buf()], &params, |_| true).unwrap();
    let params = ContextParams {
        kv_tokens: KV_TOKENS,
        batch_tokens_max: ROWS_MAX,
        outputs_max: ROWS_MAX,
        sequences_max: SEQUENCES,
        threads: 1,
        poll: 50,
        kv_type: KvType::F16,
        embeddings: false,
    };
    Context::new(&model, params).unwrap()
}

#[track_caller]
fn check(architecture: Architecture, weights: WeightType) {
    let folder = tempfile::tempdir().unwrap();
    let period = match architecture {
        _ if architecture.has_window() || architecture.has_linear_attention() => 2,
        _ => 1,
    };
    // Seven places of the same kind: no split into 2, 3 or 5 is even.
    let spec = ModelSpec {
        layers: 7 * period,
        weights,
        ..ModelSpec::tiny(architecture)
    };
    let path = folder.path().join("whole.gguf");
    model::write(&spec, &path).unwrap();
    let keep_layout =
        architecture == Architecture::Deepseek2 || architecture.has_linear_attention();
    let mut whole = whole(&path, keep_layout);
    let can_cut = !whole.model().is_recurrent();
    let course = Transcript::of(&mut whole, spec.vocab as i32, can_cut);
    assert!(
        course.is_varied(),
        "{architecture} {weights:?} says always the same"
    );
    for parts in [2, 3, 5] {
        let slices = slices::cut(&path, parts, folder.path());
        let what = format!("{architecture} {weights:?} cut at {:?}", slices.cuts);
        course.check(&mut pipeline(&slices, &options()), &what);
    }
}

macro_rules! certify {
    ($($name:ident: $architecture:ident,)*) => {$(
        #[test]
        fn $name() {
            for weights in [WeightType::F32, WeightType::Q8_0] {
                check(Architecture::$architecture, weights);
            }
        }
    )*};
}

certify! {
    llama: Llama,
    llama_experts: LlamaExperts,
    qwen2: Qwen2,
    qwen3: Qwen3,
    qwen3moe: Qwen3Moe,
    gemma2: Gemma2,
    gemma3: Gemma3,
    phi3: Phi3,
    glm4: Glm4,
    deepseek2: Deepseek2,
    gpt_oss: GptOss,
    qwen35: Qwen35,
    qwen35moe: Qwen35Moe,
    glm4moe: Glm4Moe,
    mistral3: Mistral3,
}
