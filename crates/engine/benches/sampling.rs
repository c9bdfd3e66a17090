//! Costs of drawing one token from the logits of a large vocabulary: each running answer pays them for each token.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use llama::{DryParams, Model, ModelParams, PenaltyParams, Sampler, SamplerStage, Token};
use testkit::model::{Architecture, ModelSpec};

/// As large as the vocabulary of current models.
const TOKENS: u32 = 150_000;
/// Tokens that penalties have seen.
const SEEN: u32 = 1024;

/// A model that is nothing but a vocabulary.
fn vocabulary() -> Model {
    let spec = ModelSpec {
        vocab: TOKENS,
        ..ModelSpec::tiny(Architecture::Qwen3)
    };
    let metadata = spec.plan().unwrap().metadata().clone();
    let header = gguf::Plan::new(metadata).unwrap().header_bytes().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vocabulary.gguf");
    std::fs::write(&path, header).unwrap();
    let params = ModelParams {
        vocabulary_only: true,
        ..ModelParams::default()
    };
    Model::load(&[path], &params, |_| true).unwrap()
}

/// A few likely tokens and many others, as a model gives them.
fn logits() -> Vec<f32> {
    let mut noise = 1_u32;
    let mut next = || {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (noise >> 8) as f32 / (1_u32 << 24) as f32
    };
    // The logarithm of even noise falls off as the logits of a model do.
    (0..TOKENS)
        .map(|_| 2.0 - 3.0 * next().max(1e-7).ln())
        .collect()
}

fn chains(criterion: &mut Criterion) {
    let model = vocabulary();
    let logits = logits();
    let narrowing = [
        SamplerStage::TopK(40),
        SamplerStage::TopP(0.95),
        SamplerStage::MinP(0.05),
        SamplerStage::Temperature(0.8),
        SamplerStage::Draw { seed: 1 },
    ];
    let penalties = SamplerStage::Penalties(PenaltyParams {
        last_n: 64,
        repeat: 1.1,
        frequency: 0.1,
        presence: 0.1,
    });
    let dry = SamplerStage::Dry(DryParams {
        multiplier: 0.8,
        base: 1.75,
        allowed_length: 2,
        last_n: SEEN,
        breakers: vec!["\n".into()],
    });
    let with = |first: SamplerStage| [vec![first], narrowing.to_vec()].concat();
    let chains = [
        // As it is behind penalties; without any, the engine needs no chain.
        ("greedy", vec![SamplerStage::Greedy]),
        ("temperature", narrowing[3..].to_vec()),
        ("top-p", [&narrowing[1..2], &narrowing[3..]].concat()),
        ("top-k, top-p, min-p", narrowing.to_vec()),
        ("penalties, top-k, top-p, min-p", with(penalties)),
        ("DRY, top-k, top-p, min-p", with(dry)),
    ];
    for (name, stages) in chains {
        let mut sampler = Sampler::new(model.vocabulary(), &stages).unwrap();
        (0..SEEN).for_each(|token| sampler.accept((token * 7 % 500) as Token));
        let mut draw = 0_u32;
        criterion.bench_function(&format!("sampling/{name}, 150,000 tokens"), |b| {
            b.iter(|| {
                draw += 1;
                black_box(sampler.sample(black_box(&logits), draw))
            });
        });
    }
}

criterion_group!(benches, chains);
criterion_main!(benches);
