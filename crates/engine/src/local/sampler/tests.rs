//! What each setting does to fixed logits. Each would fail if its stage were left out.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use llama::{Model, ModelParams};
use testkit::model::{Architecture, ModelSpec, write};

use super::*;

/// Tokens of single letters: the synthetic vocabulary begins with all bytes.
const A: TokenId = 65;
const B: TokenId = 66;
const C: TokenId = 67;
const D: TokenId = 68;
const E: TokenId = 69;
const F: TokenId = 70;
const G: TokenId = 71;

/// Four tokens have all the probability there is.
const FALLING: [(TokenId, f32); 4] = [(A, 0.5), (B, 0.25), (C, 0.15), (D, 0.1)];

/// So many that a token of a tenth is among them.
const SEEDS: u32 = 200;

fn vocabulary() -> &'static llama::Vocabulary {
    static MODEL: OnceLock<Model> = OnceLock::new();
    let load = || {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.gguf");
        write(&ModelSpec::tiny(Architecture::Qwen3), &path).unwrap();
        let params = ModelParams {
            vocabulary_only: true,
            ..ModelParams::default()
        };
        Model::load(&[path], &params, |_| true).unwrap()
    };
    MODEL.get_or_init(load).vocabulary()
}

fn logits(probabilities: &[(TokenId, f32)]) -> Vec<f32> {
    let mut logits = vec![-30.0; vocabulary().len()];
    for (token, probability) in probabilities {
        logits[*token as usize] = probability.ln();
    }
    logits
}

/// Nothing is left out and nothing changed, unless `set` says so.
fn sampler(set: fn(&mut Sampling), seed: u32, prompt: &[TokenId]) -> TokenSampler {
    let mut sampling = Sampling {
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        ..Sampling::default()
    };
    set(&mut sampling);
    TokenSampler::new(vocabulary(), &sampling, seed, None, None, 512, prompt).unwrap()
}

fn draw(sampler: &mut TokenSampler, logits: &[f32], banned: &[TokenId]) -> TokenId {
    let drawn = sampler.draw(vocabulary(), &mut logits.to_vec(), 0, banned);
    drawn.unwrap().token
}

/// The tokens that come with any seed.
fn first_tokens(set: fn(&mut Sampling), probabilities: &[(TokenId, f32)]) -> BTreeSet<TokenId> {
    let logits = logits(probabilities);
    (0..SEEDS)
        .map(|seed| draw(&mut sampler(set, seed, &[]), &logits, &[]))
        .collect()
}

#[test]
fn stages_that_leave_tokens_out_leave_the_right_ones() {
    #[track_caller]
    fn check(set: fn(&mut Sampling), expected: &[TokenId]) {
        let expected = expected.iter().copied().collect();
        assert_eq!(first_tokens(set, &FALLING), expected);
    }
    check(|_| {}, &[A, B, C, D]);
    check(|s| s.temperature = 0.0, &[A]);
    check(|s| s.temperature = 0.01, &[A]);
    check(|s| s.top_k = 1, &[A]);
    // However flat the distribution is made afterwards.
    check(|s| (s.top_k, s.temperature) = (1, 100.0), &[A]);
    check(|s| s.top_k = 3, &[A, B, C]);
    check(|s| s.top_p = 0.01, &[A]);
    check(|s| s.top_p = 0.6, &[A, B]);
    check(|s| s.min_p = 1.0, &[A]);
    check(|s| s.min_p = 0.4, &[A, B]);
}

#[test]
fn a_high_temperature_lets_unlikely_tokens_come() {
    let tokens = first_tokens(|s| s.temperature = 100.0, &FALLING);
    assert!(tokens.len() > 50, "{tokens:?}");
}

/// One token says much less than is to be expected, and is not typical although it is the likeliest.
#[test]
fn typical_sampling_leaves_the_obvious_out() {
    let mut obvious = vec![(A, 0.4)];
    obvious.extend((B..B + 6).map(|token| (token, 0.1)));
    assert!(first_tokens(|_| {}, &obvious).contains(&A));
    let typical = first_tokens(|s| s.typical_p = 0.25, &obvious);
    assert!(typical.iter().all(|token| (B..B + 6).contains(token)));
    assert_eq!(typical.len(), 3);
}

#[test]
fn mirostat_keeps_to_the_surprise_that_is_wanted() {
    #[track_caller]
    fn check(set: fn(&mut Sampling), expected: &[TokenId]) {
        let expected = expected.iter().copied().collect();
        assert_eq!(first_tokens(set, &FALLING), expected);
    }
    fn mirostat(version: u8, tau: f32) -> Option<crate::Mirostat> {
        Some(crate::Mirostat {
            version,
            tau,
            eta: 0.1,
        })
    }
    check(|s| s.mirostat = mirostat(1, 0.001), &[A]);
    check(|s| s.mirostat = mirostat(2, 0.001), &[A]);
    // The first estimates how many tokens that are, the second takes those of at most 2.4 bits.
    check(|s| s.mirostat = mirostat(1, 1.2), &[A]);
    check(|s| s.mirostat = mirostat(2, 1.2), &[A, B]);
    check(|s| s.mirostat = mirostat(1, 3.0), &[A, B]);
    check(|s| s.mirostat = mirostat(2, 3.0), &[A, B, C, D]);
}

#[test]
fn bias_and_bans_decide_what_is_likely() {
    let logits = logits(&FALLING);
    let greedy = |set: fn(&mut Sampling), banned: &[TokenId]| {
        draw(&mut sampler(set, 1, &[]), &logits, banned)
    };
    assert_eq!(greedy(|s| s.temperature = 0.0, &[A]), B);
    let biased = |s: &mut Sampling| (s.temperature, s.logit_bias) = (0.0, vec![(D, 5.0)]);
    assert_eq!(greedy(biased, &[]), D);
    let without = |s: &mut Sampling| {
        (s.temperature, s.logit_bias) = (0.0, vec![(A, f32::NEG_INFINITY)]);
    };
    assert_eq!(greedy(without, &[]), B);
}

/// Draws greedily after `seen`, which has come as the prompt, as the answer, or as half of each.
#[track_caller]
fn check_penalty(set: fn(&mut Sampling), seen: &[TokenId], expected: TokenId) {
    let logits = logits(&FALLING);
    for prompt_tokens in [0, seen.len() / 2, seen.len()] {
        let (prompt, answer) = seen.split_at(prompt_tokens);
        let mut sampling = Sampling {
            temperature: 0.0,
            ..Sampling::default()
        };
        set(&mut sampling);
        let sampler = TokenSampler::new(vocabulary(), &sampling, 1, None, None, 512, prompt);
        let mut sampler = sampler.unwrap();
        for token in answer {
            sampler.accept(*token).unwrap();
        }
        let token = draw(&mut sampler, &logits, &[]);
        assert_eq!(token, expected, "{prompt_tokens} tokens are the prompt");
    }
}

#[test]
fn penalties_count_what_was_said() {
    check_penalty(|_| {}, &[A, A, A], A);
    check_penalty(|s| s.repeat_penalty = 3.0, &[A], B);
    check_penalty(|s| s.repeat_penalty = 3.0, &[B], A);
    // Once and for all, or for each time.
    check_penalty(|s| s.presence_penalty = 1.0, &[A], B);
    check_penalty(|s| s.presence_penalty = 0.5, &[A, A], A);
    check_penalty(|s| s.frequency_penalty = 0.5, &[A], A);
    check_penalty(|s| s.frequency_penalty = 0.5, &[A, A], B);
    // As far back as was asked for.
    let near = |s: &mut Sampling| (s.presence_penalty, s.penalty_last_n) = (1.0, 2);
    check_penalty(near, &[A, E, E], A);
    check_penalty(near, &[E, A, E], B);
    check_penalty(
        |s| (s.presence_penalty, s.penalty_last_n) = (1.0, 0),
        &[A],
        A,
    );
    let whole = |s: &mut Sampling| (s.presence_penalty, s.penalty_last_n) = (1.0, u32::MAX);
    let mut long = vec![E; 500];
    long[0] = A;
    check_penalty(whole, &long, B);
}

#[test]
fn dry_ends_a_repeat() {
    // The fourth token would make the repeat one longer.
    let seen = [E, F, G, A, E, F, G];
    check_penalty(|s| s.dry_multiplier = 1.0, &seen, B);
    check_penalty(|s| s.dry_multiplier = 1.0, &[E, F, G, A, F, E, G], A);
    // Longer than what is left alone, and by how much.
    check_penalty(
        |s| (s.dry_multiplier, s.dry_allowed_length) = (1.0, 4),
        &seen,
        A,
    );
    check_penalty(|s| (s.dry_multiplier, s.dry_base) = (0.5, 2.0), &seen, B);
    check_penalty(|s| (s.dry_multiplier, s.dry_base) = (0.5, 1.0), &seen, A);
    check_penalty(
        |s| (s.dry_multiplier, s.dry_penalty_last_n) = (1.0, 4),
        &seen,
        A,
    );
    check_penalty(
        |s| {
            s.dry_multiplier = 1.0;
            s.dry_sequence_breakers = vec!["G".into()];
        },
        &seen,
        A,
    );
}

#[test]
fn only_penalties_look_back() {
    #[track_caller]
    fn check(set: fn(&mut Sampling), expected: usize) {
        let mut sampling = Sampling::default();
        set(&mut sampling);
        assert_eq!(window(&sampling), expected);
    }
    check(|_| {}, 0);
    check(|s| s.repeat_penalty = 1.1, 64);
    check(|s| (s.presence_penalty, s.penalty_last_n) = (-0.5, 7), 7);
    check(|s| s.dry_multiplier = 0.8, 1024);
    check(
        |s| (s.frequency_penalty, s.dry_multiplier) = (0.1, 0.8),
        1024,
    );
}

#[test]
fn argmax_takes_the_first_of_equals_and_nothing_from_nothing() {
    assert_eq!(argmax(&[1.0, 3.0, 3.0]), Some(1));
    assert_eq!(argmax(&[f32::NEG_INFINITY; 3]), None);
    assert_eq!(argmax(&[f32::NAN, f32::NAN]), None);
    let mut many = vec![f32::NAN; 100];
    (many[37], many[98]) = (1.0, 2.0);
    assert_eq!(argmax(&many), Some(98));
    assert_eq!(argmax(&many[..90]), Some(37));
}

#[test]
fn logprobs_are_a_distribution_and_sorted() {
    let logits = [1.0, 2.0, 3.0, 0.0];
    let report = Report::new(&logits, 4).of(0, |_| vec![]);
    let sum: f32 = report.top.iter().map(|(_, _, l)| l.exp()).sum();
    assert!((sum - 1.0).abs() < 1e-5);
    assert_eq!(
        report.top.iter().map(|t| t.0).collect::<Vec<_>>(),
        [2, 1, 0, 3]
    );
    assert_eq!(report.logprob, report.top[2].2);
}

#[test]
fn greedy_without_penalties_needs_no_chain() {
    let sampling = Sampling {
        temperature: 0.0,
        ..Sampling::default()
    };
    assert_eq!(stages(&sampling, 1, 64), [SamplerStage::Greedy]);
    assert_eq!(stages(&Sampling::default(), 1, 64).len(), 5);
}
