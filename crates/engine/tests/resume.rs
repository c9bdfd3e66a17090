//! Answers that another engine began: the text must go on as if nothing had happened.
#![cfg(feature = "solo")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use engine::{
    Backend, Draft, Engine, Event, FinishReason, Input, LoadOptions, ModelSource, Request, Resumed,
    TokenId,
};
use futures::StreamExt;
use testkit::model::{Architecture, ModelSpec, write};

/// What came of one request, by choice.
#[derive(Debug, Default, Clone, PartialEq)]
struct Answer {
    tokens: Vec<Vec<TokenId>>,
    text: Vec<String>,
    ends: Vec<Option<FinishReason>>,
    completion_tokens: u32,
}

async fn answer(engine: &Engine, request: Request) -> Answer {
    let choices = request.n as usize;
    let mut answer = Answer {
        tokens: vec![Vec::new(); choices],
        text: vec![String::new(); choices],
        ends: vec![None; choices],
        completion_tokens: 0,
    };
    let mut events = engine.generate(request).await.unwrap();
    let mut started = 0;
    while let Some(event) = events.next().await {
        match event.unwrap() {
            Event::Started { .. } => started += 1,
            Event::Delta { choice, delta } => {
                assert_eq!(started, 1);
                answer.tokens[choice as usize].extend(delta.tokens);
                answer.text[choice as usize] += &delta.content;
            }
            Event::Finished { choice, reason } => answer.ends[choice as usize] = Some(reason),
            Event::Done(summary) => answer.completion_tokens = summary.usage.completion_tokens,
        }
    }
    answer
}

async fn engine(seed: u64) -> (tempfile::TempDir, Engine) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    let mut spec = ModelSpec::tiny(Architecture::Qwen3);
    spec.seed = seed;
    write(&spec, &path).unwrap();
    let mut options = LoadOptions::new(ModelSource::Path(path));
    options.context_tokens = Some(512);
    options.slots = Some(4);
    options.threads = Some(1);
    options.draft = Draft::None;
    let engine = tokio::task::spawn_blocking(|| Engine::load(options, |_| {}));
    (folder, engine.await.unwrap().unwrap())
}

fn request() -> Request {
    let mut request = Request::new("", Input::Text("how an answer goes on elsewhere".into()));
    request.limits.max_tokens = Some(24);
    request.limits.ignore_eos = true;
    request.sampling.seed = Some(5);
    request
}

/// Cuts an answer at each place and lets a second engine go on.
async fn check(request: Request) {
    let (_first_folder, first) = engine(1).await;
    let (_second_folder, second) = engine(1).await;
    let whole = answer(&first, request.clone()).await;
    for cut in [0, 1, 7, 23, 24] {
        let mut resumed = request.clone();
        resumed.resume = (whole.tokens.iter())
            .map(|tokens| Resumed {
                tokens: tokens[..cut.min(tokens.len())].to_vec(),
                finished: false,
            })
            .collect();
        let again = answer(&second, resumed).await;
        assert_eq!(again, whole, "cut at {cut}");
    }
}

#[tokio::test]
async fn greedy_text_goes_on() {
    let mut greedy = request();
    greedy.sampling.temperature = 0.0;
    check(greedy).await;
}

/// A draw depends on the seed and its number alone, so it comes out alike elsewhere.
#[tokio::test]
async fn drawn_text_goes_on() {
    let mut drawn = request();
    drawn.sampling.temperature = 1.0;
    drawn.sampling.repeat_penalty = 1.1;
    check(drawn.clone()).await;
    drawn.n = 3;
    check(drawn).await;
}

#[tokio::test]
async fn stop_strings_and_grammars_go_on() {
    let mut stopped = request();
    stopped.sampling.temperature = 0.0;
    stopped.format = engine::Format::Grammar(r#"root ::= "abc" [xyz]+ "; the end""#.into());
    stopped.limits.stop = vec!["the end".into()];
    stopped.limits.max_tokens = Some(60);
    check(stopped).await;
}

#[tokio::test]
async fn choices_that_have_ended_stay_ended() {
    let (_folder, engine) = engine(2).await;
    let mut request = request();
    // A draw between tokens that are equally likely falls by rounding: the second time other cells of
    // the cache are in use.
    request.sampling.temperature = 0.0;
    request.n = 2;
    let whole = answer(&engine, request.clone()).await;
    request.resume = vec![
        Resumed {
            tokens: whole.tokens[0].clone(),
            finished: true,
        },
        Resumed {
            tokens: whole.tokens[1][..9].to_vec(),
            finished: false,
        },
    ];
    let again = answer(&engine, request.clone()).await;
    assert_eq!((again.tokens[0].len(), again.ends[0]), (0, None));
    assert_eq!(again.tokens[1], whole.tokens[1]);
    assert_eq!(again.completion_tokens, whole.completion_tokens);
    request.resume[1] = Resumed {
        tokens: whole.tokens[1].clone(),
        finished: true,
    };
    let over = answer(&engine, request.clone()).await;
    assert_eq!(over.ends, [None, None]);
    assert_eq!(over.completion_tokens, whole.completion_tokens);
}

#[tokio::test]
async fn nonsense_is_refused() {
    let (_folder, engine) = engine(3).await;
    let refused = |resume: Vec<Vec<TokenId>>| {
        let mut request = request();
        let resumed = |tokens| Resumed {
            tokens,
            finished: false,
        };
        request.resume = resume.into_iter().map(resumed).collect();
        let engine = engine.clone();
        async move { engine.generate(request).await.err().unwrap().to_string() }
    };
    assert!(
        refused(vec![vec![], vec![]])
            .await
            .contains("one entry per choice")
    );
    assert!(
        refused(vec![vec![-1]])
            .await
            .contains("no token of the model")
    );
    assert!(
        refused(vec![vec![1; 600]])
            .await
            .contains("longer than the context")
    );
}
