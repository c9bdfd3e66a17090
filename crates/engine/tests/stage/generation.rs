//! Requests are answered by a split model as by a whole one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use engine::stage::{EmbeddingTable, LocalStages, StageBatch, StageError, StageRunner, Stages};
use engine::{
    Backend, Draft, Engine, Event, FinishReason, Input, LoadOptions, ModelSource, Request, TokenId,
    stage_options,
};
use futures::StreamExt;
use testkit::model::{self, Architecture, ModelSpec};

use crate::slices::{self, Slices};

/// Tokens of an answer.
const TOKENS: u32 = 40;

pub(crate) fn options(path: &Path) -> LoadOptions {
    LoadOptions {
        context_tokens: Some(512),
        slots: Some(3),
        threads: Some(1),
        // Drafts depend on how long steps take, and with them what a batch holds.
        draft: Draft::None,
        ..LoadOptions::new(ModelSource::Path(path.to_path_buf()))
    }
}

/// The model at `whole`, cut in three.
pub(crate) fn slices(folder: &tempfile::TempDir) -> Slices {
    let path = folder.path().join("whole.gguf");
    let spec = ModelSpec {
        layers: 6,
        ..ModelSpec::tiny(Architecture::Qwen3)
    };
    model::write(&spec, &path).unwrap();
    slices::cut(&path, 3, folder.path())
}

pub(crate) fn stages(parts: &[PathBuf], tail: &LoadOptions) -> LocalStages {
    let room = stage_options(tail).unwrap();
    let open = |path: &PathBuf| StageRunner::open(path, &room).unwrap();
    LocalStages::new(parts.iter().map(open).collect())
}

/// The engine of a split model whose tail is loaded with these options.
pub(crate) fn split_with(slices: &Slices, options: impl Fn(&Path) -> LoadOptions) -> Engine {
    let (tail, parts) = slices.parts.split_last().unwrap();
    let tail = options(tail);
    let stages = stages(parts, &tail);
    let embedding = EmbeddingTable::open(&slices.whole).unwrap();
    Engine::load_split(&tail, embedding, Box::new(stages)).unwrap()
}

fn split(slices: &Slices, wrap: impl FnOnce(LocalStages) -> Box<dyn Stages>) -> Engine {
    let (tail, parts) = slices.parts.split_last().unwrap();
    let tail = options(tail);
    let stages = wrap(stages(parts, &tail));
    let embedding = EmbeddingTable::open(&slices.whole).unwrap();
    Engine::load_split(&tail, embedding, stages).unwrap()
}

pub(crate) async fn answer(engine: &Engine, prompt: &str) -> Result<Vec<TokenId>, engine::Error> {
    let mut request = Request::new("", Input::Text(prompt.into()));
    request.sampling.temperature = 0.0;
    request.limits.max_tokens = Some(TOKENS);
    request.limits.ignore_eos = true;
    let mut events = engine.generate(request).await?;
    let mut tokens = Vec::new();
    while let Some(event) = events.next().await {
        match event? {
            Event::Delta { delta, .. } => tokens.extend(delta.tokens),
            Event::Finished { reason, .. } => assert_eq!(reason, FinishReason::Length),
            _ => {}
        }
    }
    Ok(tokens)
}

/// Short ones, that are evaluated in one call however slow the machine is.
const PROMPTS: [&str; 5] = ["the rain", "the rain in", "a train", "a", "the rain"];

#[tokio::test]
async fn a_split_engine_says_what_a_whole_one_says() {
    let folder = tempfile::tempdir().unwrap();
    let slices = slices(&folder);
    let whole = Engine::load(options(&slices.whole), |_| {}).unwrap();
    let split = split(&slices, |stages| Box::new(stages));
    // One after the other: in a crowd the batches depend on who comes when, and the last bits on them.
    for prompt in PROMPTS {
        let wanted = answer(&whole, prompt).await.unwrap();
        assert_eq!(wanted.len(), TOKENS as usize);
        assert_eq!(answer(&split, prompt).await.unwrap(), wanted, "{prompt}");
    }
    let crowd = PROMPTS.iter().map(|prompt| answer(&split, prompt));
    for answer in futures::future::join_all(crowd).await {
        assert_eq!(answer.unwrap().len(), TOKENS as usize);
    }
}

/// Fails at some calls, as a machine that goes away for a moment; what it held it still holds then.
struct Flaky {
    stages: LocalStages,
    calls: usize,
    fails_at: &'static [usize],
    error: StageError,
    rows: Arc<AtomicUsize>,
}

impl Flaky {
    fn new(stages: LocalStages, fails_at: &'static [usize], error: StageError) -> Self {
        Self {
            stages,
            calls: 0,
            fails_at,
            error,
            rows: Arc::default(),
        }
    }
}

impl Stages for Flaky {
    fn submit(&mut self, batch: &StageBatch<'_>) -> Result<(), StageError> {
        self.calls += 1;
        if self.fails_at.contains(&self.calls) {
            return Err(self.error.clone());
        }
        self.rows.fetch_add(batch.len(), Ordering::SeqCst);
        self.stages.submit(batch)
    }

    fn receive(&mut self, hidden: &mut Vec<f32>) -> Result<(), StageError> {
        self.stages.receive(hidden)
    }

    fn copy(&mut self, from: u32, to: u32, tokens: u32) -> Result<(), StageError> {
        self.stages.copy(from, to, tokens)
    }

    fn cut(&mut self, sequence: u32, from: u32) -> Result<(), StageError> {
        self.stages.cut(sequence, from)
    }

    fn hold(&mut self, held: &mut [u32]) -> Result<(), StageError> {
        let mut sequences = (0..).zip(held);
        sequences.try_for_each(|(sequence, held)| self.stages.cut(sequence, *held))
    }

    fn clear(&mut self) -> Result<(), StageError> {
        self.stages.clear()
    }
}

#[tokio::test]
async fn a_failed_step_is_evaluated_again() {
    let folder = tempfile::tempdir().unwrap();
    let slices = slices(&folder);
    let whole = Engine::load(options(&slices.whole), |_| {}).unwrap();
    let flaky = |fails_at| {
        move |stages| -> Box<dyn Stages> {
            let lost = StageError::Lost("the machine is gone".into());
            Box::new(Flaky::new(stages, fails_at, lost))
        }
    };
    // What was lost is evaluated again in one call, so the last bits of what follows may be others.
    let wanted = answer(&whole, PROMPTS[0]).await.unwrap();
    let twice = split(&slices, flaky(&[3, 9]));
    let got = answer(&twice, PROMPTS[0]).await.unwrap();
    assert_eq!((got.len(), &got[..2]), (wanted.len(), &wanted[..2]));
    let always = split(&slices, flaky(&[4, 5, 6]));
    let error = answer(&always, PROMPTS[0]).await.unwrap_err();
    assert!(error.to_string().contains("the machine is gone"), "{error}");
    assert_eq!(answer(&always, PROMPTS[0]).await.unwrap(), wanted);
}

#[tokio::test]
async fn nothing_is_evaluated_again_that_is_still_there() {
    let folder = tempfile::tempdir().unwrap();
    let slices = slices(&folder);
    let whole = Engine::load(options(&slices.whole), |_| {}).unwrap();
    let mut rows = Arc::default();
    let split = split(&slices, |stages| {
        let pausing = Flaky::new(stages, &[3, 4, 9], StageError::Waiting);
        rows = Arc::clone(&pausing.rows);
        Box::new(pausing)
    });
    let wanted = answer(&whole, PROMPTS[0]).await.unwrap();
    // To the last bit: no row has been evaluated in another company.
    assert_eq!(answer(&split, PROMPTS[0]).await.unwrap(), wanted);
    let prompt = Backend::tokenize(&split, PROMPTS[0].into(), true, false);
    // The last token is not evaluated any more.
    let evaluated = prompt.await.unwrap().len() + wanted.len() - 1;
    assert_eq!(rows.load(Ordering::SeqCst), evaluated);
}
