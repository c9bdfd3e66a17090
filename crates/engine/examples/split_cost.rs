//! Times a whole model against its three parts in this process: `split_cost [THREADS] [MODEL.gguf]`.
//!
//! Without a model it makes one of the shape of a half-billion-parameter model. Rounds alternate, so
//! that whatever else the machine does hits both; the ratios compare medians.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use engine::stage::{EmbeddingTable, LocalStages, Pipeline, StageOptions, StageRunner, Tail};
use gguf::{LayerMap, SliceRole};
use llama::{Batch, Context, ContextParams, KvType, Model, ModelParams};
use testkit::model::ModelSpec;

const PROMPT_TOKENS: i32 = 64;
const TOKENS: i32 = 40;
const ROUNDS: usize = 7;
const PARTS: u32 = 3;

fn main() {
    let mut args = std::env::args().skip(1);
    let threads = args.next().map_or(2, |t| t.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = args.next().map_or_else(
        || {
            let path = folder.path().join("whole.gguf");
            testkit::model::write(&ModelSpec::bench_half_billion(), &path).unwrap();
            path
        },
        PathBuf::from,
    );
    let mut whole = whole(&path, threads);
    let mut split = split(&path, threads, folder.path());
    let mut times = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        whole.clear();
        let whole_ms = round(|tokens, position, logits| {
            let mut batch = Batch::new();
            for (row, &token) in tokens.iter().enumerate() {
                let output = row + 1 == tokens.len();
                batch.push(token, position + row as i32, 0, output);
            }
            whole.decode(&mut batch).unwrap();
            logits.extend_from_slice(whole.logits(tokens.len() - 1).unwrap());
        });
        split.clear().unwrap();
        let split_ms = round(|tokens, position, logits| {
            let rows = tokens.len();
            let positions: Vec<i32> = (position..position + rows as i32).collect();
            let mut outputs = vec![false; rows];
            outputs[rows - 1] = true;
            split
                .run(tokens, &positions, &vec![0; rows], &outputs)
                .unwrap();
            logits.extend_from_slice(split.logits(rows - 1).unwrap());
        });
        assert_eq!(whole_ms.2, split_ms.2, "whole and split say the same");
        for (times, ms) in times
            .iter_mut()
            .zip([whole_ms.0, split_ms.0, whole_ms.1, split_ms.1])
        {
            times.push(ms);
        }
    }
    let [whole_prompt, split_prompt, whole, split] = times.map(median);
    println!(
        "prompt of {PROMPT_TOKENS}: whole {whole_prompt:.1} ms, {PARTS} parts {split_prompt:.1} ms, ratio {:.3}",
        split_prompt / whole_prompt
    );
    println!(
        "{TOKENS} tokens: whole {whole:.1} ms, {PARTS} parts {split:.1} ms, ratio {:.3}",
        split / whole
    );
}

/// A prompt and greedy tokens: ms of both, and the tokens.
fn round(mut step: impl FnMut(&[i32], i32, &mut Vec<f32>)) -> (f64, f64, Vec<i32>) {
    let mut due: Vec<i32> = (0..PROMPT_TOKENS).map(|i| (i * 37 + 11) % 256).collect();
    let (mut position, mut made, mut logits) = (0, Vec::new(), Vec::new());
    let mut start = Instant::now();
    let mut prompt_ms = 0.0;
    for step_number in 0..=TOKENS {
        logits.clear();
        step(&due, position, &mut logits);
        position += due.len() as i32;
        let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
        due = vec![best.unwrap() as i32];
        made.push(due[0]);
        if step_number == 0 {
            prompt_ms = start.elapsed().as_secs_f64() * 1e3;
            start = Instant::now();
        }
    }
    (prompt_ms, start.elapsed().as_secs_f64() * 1e3, made)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn whole(path: &Path, threads: u32) -> Context {
    let model = Model::load(&[path.to_path_buf()], &ModelParams::default(), |_| true).unwrap();
    let params = ContextParams {
        kv_tokens: 512,
        batch_tokens_max: 256,
        outputs_max: 1,
        sequences_max: 1,
        threads,
        poll: 50,
        kv_type: KvType::F16,
        embeddings: false,
    };
    Context::new(&model, params).unwrap()
}

fn split(path: &Path, threads: u32, folder: &Path) -> Pipeline {
    let options = StageOptions {
        kv_tokens: 512,
        sequences: 1,
        rows_max: 256,
        outputs_max: 1,
        threads: Some(threads),
        gpu_layers: None,
        device: None,
    };
    let model = gguf::Model::open(path).unwrap();
    let map = LayerMap::of(&model).unwrap();
    let sources = model.open_sources().unwrap();
    let slice = |part: u32| {
        let (from, to) = (
            part * map.layers() / PARTS,
            (part + 1) * map.layers() / PARTS,
        );
        let role = match part + 1 == PARTS {
            true => SliceRole::Tail,
            false => SliceRole::Stage,
        };
        let path = folder.join(format!("part-{part}.gguf"));
        let plan = map.plan(from..to, role).unwrap();
        plan.write(&sources, File::create(&path).unwrap(), |_| true)
            .unwrap();
        path
    };
    let stages: Vec<StageRunner> = (0..PARTS - 1)
        .map(|part| StageRunner::open(&slice(part), &options).unwrap())
        .collect();
    let tail = Tail::open(&slice(PARTS - 1), &options).unwrap();
    Pipeline::new(
        EmbeddingTable::open(path).unwrap(),
        Box::new(LocalStages::new(stages)),
        tail,
    )
    .unwrap()
}
