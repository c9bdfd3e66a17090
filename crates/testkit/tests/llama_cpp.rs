//! llama.cpp loads every synthetic model, computes finite numbers with it, and its tokenizer works.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

use llama::{Batch, Context, ContextParams, Model, ModelParams, Token};
use testkit::model::{self, Architecture, END_OF_TEXT, IM_END, IM_START, ModelSpec, WeightType};

const TEXT: &str = "<|im_start|>user\nthe rain in 2024<|im_end|>\n";
/// Greedy tokens after the prompt; enough to leave every sliding window of 16.
const STEPS: usize = 12;

fn load(spec: &ModelSpec, folder: &Path) -> Model {
    let path = folder.join(format!("{}-{:?}.gguf", spec.architecture, spec.weights));
    model::write(spec, &path).unwrap();
    let loaded = Model::load(&[path], &ModelParams::default(), |_| true);
    loaded.unwrap_or_else(|e| panic!("{} {:?}: {e}", spec.architecture, spec.weights))
}

fn context(model: &Model, embeddings: bool) -> Context {
    let params = ContextParams {
        kv_tokens: 256,
        batch_tokens_max: 128,
        outputs_max: 128,
        sequences_max: 2,
        threads: 1,
        poll: 0,
        kv_type: llama::KvType::F16,
        embeddings,
    };
    Context::new(model, params).unwrap()
}

/// Prompt tokens, then greedy ones; checks every logit on the way.
fn generate(spec: &ModelSpec, model: &Model) -> Vec<Token> {
    let mut context = context(model, false);
    let mut due = model.vocabulary().tokenize(TEXT, true, true).unwrap();
    let mut made = Vec::new();
    let mut position = 0;
    for _ in 0..STEPS {
        let mut batch = Batch::new();
        for (i, &token) in due.iter().enumerate() {
            batch.push(token, position, 0, i + 1 == due.len());
            position += 1;
        }
        context.decode(&mut batch).unwrap();
        let logits = context.logits(due.len() - 1).unwrap();
        assert_eq!(logits.len(), spec.vocab as usize);
        assert!(
            logits.iter().all(|l| l.is_finite()),
            "{}",
            spec.architecture
        );
        let best = (0..logits.len())
            .max_by(|&a, &b| logits[a].total_cmp(&logits[b]))
            .unwrap();
        let spread = logits[best] - logits.iter().copied().fold(f32::INFINITY, f32::min);
        assert!(
            spread > 0.1,
            "{}: logits spread over {spread}",
            spec.architecture
        );
        due = vec![best as Token];
        made.push(best as Token);
    }
    made
}

#[test]
fn every_generating_architecture_decodes() {
    let folder = tempfile::tempdir().unwrap();
    for &architecture in Architecture::ALL.iter().filter(|a| !a.is_embedding()) {
        for weights in [WeightType::F32, WeightType::F16, WeightType::Q8_0] {
            let spec = ModelSpec {
                weights,
                ..ModelSpec::tiny(architecture)
            };
            let model = load(&spec, folder.path());
            let mut made = generate(&spec, &model);
            assert_eq!(made, generate(&spec, &model), "{architecture} {weights:?}");
            // A model that says one token for ever would hide errors in positions and caches.
            made.sort_unstable();
            made.dedup();
            assert!(
                made.len() >= STEPS / 4,
                "{architecture} {weights:?} says only {made:?}"
            );
        }
    }
}

#[test]
fn a_model_of_loops_goes_round() {
    let folder = tempfile::tempdir().unwrap();
    for weights in [WeightType::F32, WeightType::Q8_0] {
        let spec = ModelSpec {
            weights,
            loop_tokens: Some(5),
            ..ModelSpec::tiny(Architecture::Qwen3)
        };
        let model = load(&spec, folder.path());
        let made = generate(&spec, &model);
        let (first, start) = (made[0], made[0] - made[0] % 5);
        let wanted: Vec<Token> = (0..made.len() as Token)
            .map(|n| start + (first - start + n) % 5)
            .collect();
        assert_eq!(made, wanted, "{weights:?}");
    }
}

#[test]
fn every_embedding_architecture_embeds() {
    let folder = tempfile::tempdir().unwrap();
    for &architecture in Architecture::ALL.iter().filter(|a| a.is_embedding()) {
        for weights in [WeightType::F32, WeightType::Q8_0] {
            let spec = ModelSpec {
                weights,
                ..ModelSpec::tiny(architecture)
            };
            let model = load(&spec, folder.path());
            let mut context = context(&model, true);
            let mut embed = |text: &str| {
                let tokens = model.vocabulary().tokenize(text, true, true).unwrap();
                let mut batch = Batch::new();
                for (i, &token) in tokens.iter().enumerate() {
                    batch.push(token, i as i32, 0, true);
                }
                context.clear();
                context.decode(&mut batch).unwrap();
                context.embedding_of_sequence(0).unwrap().to_vec()
            };
            let (one, two) = (embed("the rain"), embed("a train"));
            assert_eq!(one.len(), spec.width as usize);
            assert!(one.iter().all(|v| v.is_finite()) && one.iter().any(|v| *v != 0.0));
            assert_ne!(one, two, "{architecture}");
            assert_eq!(one, embed("the rain"), "{architecture}");
        }
    }
}

#[test]
fn the_tokenizer_works() {
    let folder = tempfile::tempdir().unwrap();
    let model = load(&ModelSpec::tiny(Architecture::Qwen3), folder.path());
    let vocabulary = model.vocabulary();
    let tokenize = |text: &str| vocabulary.tokenize(text, true, true).unwrap();
    assert_eq!(tokenize("0123456789").len(), 10);
    assert_eq!(
        tokenize("<|endoftext|><|im_start|><|im_end|>"),
        [END_OF_TEXT, IM_START, IM_END].map(|t| t as Token)
    );
    // " the" is one token through three merges; "é" is two bytes.
    assert_eq!(tokenize(" the").len(), 1);
    assert_eq!(tokenize("é").len(), 2);
    let back = |text: &str| -> Vec<u8> {
        tokenize(text)
            .iter()
            .flat_map(|t| vocabulary.token_bytes(*t, true))
            .collect()
    };
    for text in [TEXT, "naïve 東京 🙂\t\r\n  x", "\0\u{7f}"] {
        assert_eq!(String::from_utf8(back(text)).unwrap(), text);
    }
    assert_eq!(vocabulary.len(), 640);
    assert!(vocabulary.is_end(IM_END as Token) && vocabulary.is_end(END_OF_TEXT as Token));
    assert_eq!(vocabulary.token_bytes(639, false), b" w639");
}

#[test]
fn block_sizes_are_ggmls() {
    // Checked through llama.cpp itself: it refuses a file whose offsets do not follow from its
    // own sizes. One tensor of each type stands before the ones that the loader wants.
    let folder = tempfile::tempdir().unwrap();
    let spec = ModelSpec::tiny(Architecture::Llama);
    let bytes = spec.to_bytes().unwrap();
    let header = gguf::Header::read(&bytes).unwrap();
    let mut plan = gguf::Plan::new(header.metadata.clone()).unwrap();
    for ggml_type in gguf::GgmlType::KNOWN {
        plan.add(&format!("extra.{ggml_type}"), &[256, 3], *ggml_type)
            .unwrap();
    }
    for t in &header.tensors {
        plan.add(&t.name, &t.dims, t.ggml_type).unwrap();
    }
    let mut writer = plan.start(Vec::new()).unwrap();
    for ggml_type in gguf::GgmlType::KNOWN {
        let size = writer.due().unwrap().size_bytes().unwrap();
        writer
            .tensor(&format!("extra.{ggml_type}"), &vec![0; size as usize])
            .unwrap();
    }
    for t in &header.tensors {
        writer
            .copy(&t.name, &bytes, header.file_range(t).unwrap().start)
            .unwrap();
    }
    let path = folder.path().join("types.gguf");
    std::fs::write(&path, writer.finish().unwrap()).unwrap();
    let error = Model::load(&[path], &ModelParams::default(), |_| true)
        .unwrap_err()
        .to_string();
    // The table is accepted, and only then are the tensors found to be too many.
    assert!(error.contains("wrong number of tensors"), "{error}");
}
