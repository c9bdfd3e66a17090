//! Models that make vectors, and those that only look as if they could.
#![cfg(feature = "solo")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use engine::{Backend, EmbedInput, EmbedRequest, Engine, Error, LoadOptions, ModelSource, TokenId};
use gguf::Pooling;
use llama::{Batch, Context, ContextParams, KvType, Model, ModelParams};
use testkit::model::{Architecture, ModelSpec, write};

struct File {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

fn file(architecture: Architecture, pooling: Option<Pooling>) -> File {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    let spec = ModelSpec {
        pooling,
        ..ModelSpec::tiny(architecture)
    };
    write(&spec, &path).unwrap();
    File {
        _folder: folder,
        path,
    }
}

fn load(file: &File) -> Result<Engine, Error> {
    let mut options = LoadOptions::new(ModelSource::Path(file.path.clone()));
    options.context_tokens = Some(512);
    options.slots = Some(4);
    options.threads = Some(1);
    Engine::load(options, |_| {})
}

fn weights(file: &File) -> Model {
    let paths = std::slice::from_ref(&file.path);
    Model::load(paths, &ModelParams::default(), |_| true).unwrap()
}

fn request(inputs: &[&[TokenId]]) -> EmbedRequest {
    EmbedRequest {
        model: String::new(),
        inputs: (inputs.iter())
            .map(|tokens| EmbedInput::Tokens(tokens.to_vec()))
            .collect(),
    }
}

async fn vectors(engine: &Engine, inputs: &[&[TokenId]]) -> Vec<Vec<f32>> {
    engine.embed(request(inputs)).await.unwrap().vectors
}

/// The largest difference between values of two vectors.
fn distance(one: &[f32], two: &[f32]) -> f32 {
    assert_eq!(one.len(), two.len());
    let differences = one.iter().zip(two).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f32::max)
}

/// What rounding may change in values of about one.
const ROUNDING: f32 = 0.02;

const TEXT: [TokenId; 3] = [70, 80, 90];

/// What a context with this pooling gives for one sequence.
fn pooled(model: &Model, pooling: llama::Pooling, tokens: &[TokenId]) -> Vec<f32> {
    let params = ContextParams {
        kv_tokens: 256,
        batch_tokens_max: 128,
        outputs_max: 128,
        sequences_max: 2,
        threads: 1,
        poll: 0,
        kv_type: KvType::F16,
        embeddings: true,
    };
    let mut context = Context::with_pooling(model, params, pooling).unwrap();
    assert_eq!(context.pooling(), pooling);
    let mut batch = Batch::new();
    for (position, token) in tokens.iter().enumerate() {
        batch.push(*token, position as i32, 0, true);
    }
    context.decode(&mut batch).unwrap();
    let vector = context.embedding_of_sequence(0);
    vector.map(<[f32]>::to_vec).unwrap_or_default()
}

/// A causal model: what a token has seen does not depend on what follows, so that each way of joining can be told
/// from the last tokens of shorter texts.
#[test]
fn each_pooling_joins_the_right_tokens() {
    let file = file(Architecture::Qwen3Embedding, None);
    let model = weights(&file);
    let ends: Vec<Vec<f32>> = (1..=TEXT.len())
        .map(|end| pooled(&model, llama::Pooling::Last, &TEXT[..end]))
        .collect();
    let apart = distance(&ends[0], &ends[2]);
    assert!(apart > 10.0 * ROUNDING, "{apart}");
    let first = pooled(&model, llama::Pooling::First, &TEXT);
    assert!(distance(&first, &ends[0]) < ROUNDING);
    let mean: Vec<f32> = (0..first.len())
        .map(|at| ends.iter().map(|end| end[at]).sum::<f32>() / ends.len() as f32)
        .collect();
    assert!(distance(&pooled(&model, llama::Pooling::Mean, &TEXT), &mean) < ROUNDING);
    // One vector per token is none of the sequence.
    assert!(pooled(&model, llama::Pooling::None, &TEXT).is_empty());
}

/// llama.cpp keeps a score per class there and no vector; a longer slice would show other memory.
#[test]
fn a_ranking_gives_one_score() {
    for architecture in [Architecture::Qwen3Embedding, Architecture::Bert] {
        let file = file(architecture, Some(Pooling::Rank));
        let model = weights(&file);
        assert_eq!(model.classes(), 1);
        let scores = pooled(&model, llama::Pooling::Rank, &TEXT);
        assert_eq!(scores.len(), 1, "{architecture}");
        assert!(scores[0].is_finite());
    }
}

#[tokio::test]
async fn files_say_how_to_join() {
    let engine = |pooling| load(&file(Architecture::Qwen3Embedding, Some(pooling))).unwrap();
    let last = vectors(&engine(Pooling::Last), &[&TEXT[..1], &TEXT]).await;
    let first = vectors(&engine(Pooling::Cls), &[&TEXT[..1], &TEXT]).await;
    // Of one token there is one vector, and the first token's stays what it is.
    for vector in [&first[0], &first[1]] {
        assert!(distance(vector, &last[0]) < ROUNDING);
    }
    assert!(distance(&last[0], &last[1]) > 2.0 * ROUNDING);
    for vector in last.iter().chain(&first) {
        let length = vector.iter().map(|v| v * v).sum::<f32>();
        assert!((length - 1.0).abs() < 1e-3);
    }
}

#[tokio::test]
async fn encoders_take_the_mean_unless_told_otherwise() {
    for architecture in [Architecture::Bert, Architecture::NomicBert] {
        let mut all = vec![];
        for pooling in [Some(Pooling::Mean), None, Some(Pooling::None)] {
            let engine = load(&file(architecture, pooling)).unwrap();
            assert!(engine.info().embeds && !engine.info().generates);
            all.push(vectors(&engine, &[&TEXT, &TEXT[..2]]).await);
        }
        assert_ne!(all[0][0], all[0][1]);
        assert_eq!(all[0], all[1], "{architecture}");
        assert_eq!(all[0], all[2], "{architecture}");
    }
}

#[test]
fn what_is_not_served_is_refused_with_its_reason() {
    for architecture in [Architecture::Qwen3Embedding, Architecture::Bert] {
        let refused = load(&file(architecture, Some(Pooling::Rank))).unwrap_err();
        assert!(
            matches!(&refused, Error::Load(reason) if reason.contains("rerankers")),
            "{refused}"
        );
    }
    // The header alone: weights are not looked at.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t5.gguf");
    let mut metadata = gguf::Metadata::new();
    metadata.set("general.architecture", "t5");
    metadata.set("t5.context_length", 512u32);
    metadata.set("t5.embedding_length", 64u32);
    metadata.set("t5.block_count", 1u32);
    let header = gguf::Plan::new(metadata).unwrap().header_bytes().unwrap();
    std::fs::write(&path, header).unwrap();
    let refused = Engine::load(LoadOptions::new(ModelSource::Path(path)), |_| {}).unwrap_err();
    assert!(
        matches!(&refused, Error::Load(reason) if reason.contains("encoder (`t5`)")),
        "{refused}"
    );
}

/// Encoders keep nothing of a text, so they can't go on with one.
#[test]
fn only_decoders_keep_sequences() {
    for (architecture, keeps) in [(Architecture::Bert, false), (Architecture::Qwen3, true)] {
        let file = file(architecture, None);
        let model = weights(&file);
        let params = ContextParams {
            kv_tokens: 64,
            batch_tokens_max: 32,
            outputs_max: 1,
            sequences_max: 1,
            threads: 1,
            poll: 0,
            kv_type: KvType::F16,
            embeddings: false,
        };
        let context = Context::new(&model, params).unwrap();
        assert_eq!(context.keeps_sequences(), keeps, "{architecture}");
        assert!(!model.has_encoder());
    }
}

/// Tokens of one input of a request that takes long; two of them fill a batch.
const LONG: usize = 256;

fn long_request(inputs: usize) -> EmbedRequest {
    let tokens: Vec<TokenId> = (0..LONG as TokenId).collect();
    request(&vec![tokens.as_slice(); inputs])
}

async fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..20_000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("{what} never came");
}

#[tokio::test]
async fn embeddings_are_counted_and_a_shutdown_waits_for_them() {
    let engine = load(&file(Architecture::Qwen3Embedding, Some(Pooling::Last))).unwrap();
    let spawn = |request| {
        let engine = engine.clone();
        tokio::spawn(async move { engine.embed(request).await })
    };
    let long = spawn(long_request(100));
    wait_until("the long request's turn", || engine.load().running > 0).await;
    assert_eq!(engine.load().running, 4);
    let short = spawn(request(&[&TEXT]));
    wait_until("the short request", || engine.load().waiting == 1).await;
    engine
        .shutdown(Instant::now() + Duration::from_secs(60))
        .await;
    // Everything is over, whether anybody has fetched it or not.
    let load = engine.load();
    assert_eq!((load.running, load.waiting, load.requests_total), (0, 0, 2));
    assert_eq!(load.prompt_tokens_total, (100 * LONG + TEXT.len()) as u64);
    assert_eq!((load.steps_total, load.cancelled_total), (51, 0));
    assert_eq!(long.await.unwrap().unwrap().vectors.len(), 100);
    assert_eq!(short.await.unwrap().unwrap().vectors.len(), 1);
    let late = engine.embed(request(&[&TEXT])).await;
    assert_eq!(late.unwrap_err(), Error::ShuttingDown);
}

#[tokio::test]
async fn a_deadline_ends_embeddings() {
    let engine = load(&file(Architecture::Qwen3Embedding, Some(Pooling::Last))).unwrap();
    let long = engine.clone();
    let long = tokio::spawn(async move { long.embed(long_request(4000)).await });
    wait_until("the request's turn", || engine.load().running > 0).await;
    engine.shutdown(Instant::now()).await;
    assert_eq!(long.await.unwrap().unwrap_err(), Error::ShuttingDown);
    let load = engine.load();
    assert_eq!((load.running, load.requests_total), (0, 0));
}

#[tokio::test]
async fn embeddings_that_nobody_waits_for_are_given_up() {
    let engine = load(&file(Architecture::Qwen3Embedding, Some(Pooling::Last))).unwrap();
    let gone = engine.clone();
    let gone = tokio::spawn(async move { gone.embed(long_request(4000)).await });
    wait_until("the request's turn", || engine.load().running > 0).await;
    gone.abort();
    wait_until("the end", || engine.load().cancelled_total == 1).await;
    assert_eq!(vectors(&engine, &[&TEXT]).await.len(), 1);
    assert_eq!(engine.load().requests_total, 1);
}
