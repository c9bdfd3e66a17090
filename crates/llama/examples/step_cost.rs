//! Times decode calls by their shape: `step_cost MODEL.gguf [THREADS] [POLL]`.
//!
//! Columns: tokens that an idle sequence holds, sequences that decode one row each, tokens that each
//! of them holds, rows of a prompt in the same call, tokens that the prompt holds already, median ms
//! of several calls. No decoding rows but held tokens: the sequences are there and rest.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::time::Instant;

use llama::{Batch, Context, ContextParams, KvType, Model, ModelParams};

/// (idle tokens, sequences, tokens held by each, whether they decode, prompt rows, held by prompt)
const SHAPES: [(i32, i32, i32, bool, i32, i32); 24] = [
    (0, 1, 0, true, 0, 0),
    (0, 1, 100, true, 0, 0),
    (0, 1, 500, true, 0, 0),
    (0, 4, 100, true, 0, 0),
    (1000, 4, 100, true, 0, 0),
    (0, 8, 100, true, 0, 0),
    (1000, 8, 100, true, 0, 0),
    (0, 0, 0, false, 32, 0),
    (0, 0, 0, false, 64, 0),
    (0, 0, 0, false, 96, 0),
    (0, 0, 0, false, 128, 0),
    (0, 0, 0, false, 256, 0),
    (0, 0, 0, false, 512, 0),
    (0, 0, 0, false, 96, 256),
    (0, 4, 100, false, 96, 256),
    (0, 4, 100, true, 92, 256),
    (400, 4, 100, false, 96, 256),
    (400, 4, 100, true, 92, 256),
    (1000, 4, 100, false, 96, 256),
    (1000, 4, 100, true, 92, 256),
    (1000, 4, 100, false, 128, 256),
    (1000, 4, 100, true, 124, 256),
    (1000, 4, 100, false, 256, 0),
    (1000, 4, 100, false, 512, 0),
];

fn main() {
    let mut args = std::env::args().skip(1);
    let path = args
        .next()
        .expect("usage: step_cost MODEL.gguf [THREADS] [POLL]");
    let threads = args.next().map_or(2, |t| t.parse().unwrap());
    let poll = args.next().map_or(50, |p| p.parse().unwrap());
    let model = Model::load(&[path.into()], &ModelParams::default(), |_| true).unwrap();
    let params = ContextParams {
        kv_tokens: 8192,
        batch_tokens_max: 512,
        outputs_max: 128,
        sequences_max: 32,
        threads,
        poll,
        kv_type: KvType::F16,
        embeddings: false,
    };
    let mut context = Context::new(&model, params).unwrap();
    let mut batch = Batch::new();
    for (idle, sequences, held, decode, prompt, prompt_held) in SHAPES {
        context.clear();
        fill(&mut context, &mut batch, sequences + 1, idle);
        for sequence in 0..sequences {
            fill(&mut context, &mut batch, sequence, held);
        }
        fill(&mut context, &mut batch, sequences, prompt_held);
        let mut times = vec![];
        for _ in 0..7 {
            for sequence in 0..=sequences {
                let from = if sequence < sequences {
                    held
                } else {
                    prompt_held
                };
                context.sequence_remove(sequence, from, None);
            }
            batch.clear();
            for sequence in (0..sequences).filter(|_| decode) {
                batch.push(40 + sequence, held, sequence, true);
            }
            for row in 0..prompt {
                let output = row + 1 == prompt;
                batch.push(40 + row % 50, prompt_held + row, sequences, output);
            }
            let start = Instant::now();
            context.decode(&mut batch).unwrap();
            let _ = context.logits(0).or(None);
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        println!(
            "{idle:4} idle, {sequences} x {held:3} decode {decode:5}, {prompt:3} after {prompt_held:3}: {:6.1} ms",
            times[times.len() / 2]
        );
    }
}

fn fill(context: &mut Context, batch: &mut Batch, sequence: i32, tokens: i32) {
    if tokens == 0 {
        return;
    }
    for start in (0..tokens).step_by(256) {
        batch.clear();
        for position in start..tokens.min(start + 256) {
            batch.push(
                40 + position % 50,
                position,
                sequence,
                position + 1 == tokens,
            );
        }
        context.decode(batch).unwrap();
    }
}
