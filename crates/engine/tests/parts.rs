//! A model in several files is the same model.
#![cfg(feature = "solo")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};

use engine::{Backend, Draft, Engine, Event, Input, LoadOptions, ModelSource, Request, TokenId};
use futures::StreamExt;
use gguf::{Header, KEY_SPLIT_COUNT, KEY_SPLIT_NO, KEY_SPLIT_TENSORS, Metadata, Plan};
use testkit::model::{Architecture, ModelSpec};

/// Writes a model over so many files, the n-th with the n-th number of tensors; all but the first have no metadata
/// beside what says that they are parts.
fn write_parts(whole: &[u8], tensors: &[usize], folder: &Path) -> Vec<PathBuf> {
    let header = Header::read(whole).unwrap();
    let mut rest = header.tensors.as_slice();
    let count = tensors.len();
    let mut paths = Vec::new();
    for (number, tensors) in tensors.iter().enumerate() {
        let (here, later) = rest.split_at(*tensors);
        rest = later;
        let mut metadata = match number {
            0 => header.metadata.clone(),
            _ => Metadata::new(),
        };
        metadata.set(KEY_SPLIT_NO, number as u16);
        metadata.set(KEY_SPLIT_COUNT, count as u16);
        metadata.set(KEY_SPLIT_TENSORS, header.tensors.len() as i32);
        let mut plan = Plan::new(metadata).unwrap();
        for tensor in here {
            plan.add(&tensor.name, &tensor.dims, tensor.ggml_type)
                .unwrap();
        }
        let mut writer = plan.start(Vec::new()).unwrap();
        for tensor in here {
            let start = header.file_range(tensor).unwrap().start;
            writer.copy(&tensor.name, whole, start).unwrap();
        }
        let path = folder.join(format!("tiny-{:05}-of-{count:05}.gguf", number + 1));
        std::fs::write(&path, writer.finish().unwrap()).unwrap();
        paths.push(path);
    }
    assert!(rest.is_empty(), "tensors are left over");
    paths
}

fn load(path: &Path) -> Engine {
    let mut options = LoadOptions::new(ModelSource::Path(path.to_path_buf()));
    options.context_tokens = Some(256);
    options.threads = Some(1);
    options.draft = Draft::None;
    Engine::load(options, |_| {}).unwrap()
}

async fn answer(engine: &Engine) -> Vec<TokenId> {
    let mut request = Request::new("", Input::Text("the same in any number of files".into()));
    request.sampling.temperature = 0.0;
    request.limits.max_tokens = Some(24);
    request.limits.ignore_eos = true;
    let mut events = engine.generate(request).await.unwrap();
    let mut tokens = Vec::new();
    while let Some(event) = events.next().await {
        if let Event::Delta { delta, .. } = event.unwrap() {
            tokens.extend(delta.tokens);
        }
    }
    tokens
}

#[tokio::test]
async fn a_model_in_parts_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = ModelSpec::tiny(Architecture::Qwen3).to_bytes().unwrap();
    let path = folder.path().join("tiny.gguf");
    std::fs::write(&path, &bytes).unwrap();
    let whole = load(&path);
    let expected = answer(&whole).await;
    assert_eq!(expected.len(), 24);
    let all = Header::read(&bytes).unwrap().tensors.len();
    // The first part has a third of the tensors, or only metadata, or everything.
    for tensors in [
        vec![all / 3, all / 3, all - 2 * (all / 3)],
        vec![0, all / 2, all - all / 2],
        vec![all],
    ] {
        let folder = tempfile::tempdir().unwrap();
        let paths = write_parts(&bytes, &tensors, folder.path());
        // Any part stands for all.
        for path in [&paths[0], &paths[paths.len() - 1]] {
            let parts = load(path);
            let (one, other) = (whole.info(), parts.info());
            assert_eq!(one.name, other.name);
            assert_eq!(one.fingerprint, other.fingerprint);
            assert_eq!(one.parameters, other.parameters);
            assert_eq!(one.size_bytes, other.size_bytes);
            assert_eq!(answer(&parts).await, expected, "{tensors:?}");
        }
    }
}
