//! Times decode calls by their shape: `step_cost MODEL.gguf [THREADS] [POLL]`.
//!
//! Columns: sequences that decode one row each, tokens that each of them holds, rows of a prompt in
//! the same call, tokens that the prompt holds already, median ms of several calls.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::time::Instant;

use llama::{Batch, Context, ContextParams, KvType, Model, ModelParams};

/// (decoding sequences, tokens held by each, prompt rows, tokens held by the prompt)
const SHAPES: [(i32, i32, i32, i32); 22] = [
    (1, 0, 0, 0),
    (1, 100, 0, 0),
    (1, 500, 0, 0),
    (4, 0, 0, 0),
    (4, 100, 0, 0),
    (8, 0, 0, 0),
    (8, 100, 0, 0),
    (8, 500, 0, 0),
    (16, 100, 0, 0),
    (0, 0, 32, 0),
    (0, 0, 64, 0),
    (0, 0, 128, 0),
    (0, 0, 128, 384),
    (0, 0, 256, 0),
    (0, 0, 512, 0),
    (4, 100, 28, 0),
    (4, 100, 60, 0),
    (4, 100, 92, 0),
    (4, 100, 124, 0),
    (4, 100, 124, 384),
    (4, 100, 188, 0),
    (4, 100, 252, 0),
];

fn main() {
    let mut args = std::env::args().skip(1);
    let path = args.next().expect("usage: step_cost MODEL.gguf [THREADS] [POLL]");
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
    for (decoding, held, prompt, prompt_held) in SHAPES {
        context.clear();
        for sequence in 0..decoding {
            fill(&mut context, &mut batch, sequence, held);
        }
        fill(&mut context, &mut batch, decoding, prompt_held);
        let mut times = vec![];
        for _ in 0..7 {
            for sequence in 0..=decoding {
                let from = if sequence < decoding { held } else { prompt_held };
                context.sequence_remove(sequence, from, None);
            }
            batch.clear();
            for sequence in 0..decoding {
                batch.push(40 + sequence, held, sequence, true);
            }
            for row in 0..prompt {
                batch.push(40 + row % 50, prompt_held + row, decoding, row + 1 == prompt);
            }
            let start = Instant::now();
            context.decode(&mut batch).unwrap();
            let _ = context.logits(0).or(None);
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        println!(
            "{decoding:3} x {held:4} decode, {prompt:4} after {prompt_held:4} prompt: {:7.1} ms",
            times[times.len() / 2]
        );
    }
}

fn fill(context: &mut Context, batch: &mut Batch, sequence: i32, tokens: i32) {
    if tokens == 0 {
        return;
    }
    batch.clear();
    for position in 0..tokens {
        batch.push(40 + position % 50, position, sequence, position + 1 == tokens);
    }
    context.decode(batch).unwrap();
}
