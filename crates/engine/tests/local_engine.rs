//! The engine on small random models: everything that does not depend on what a model knows.
#![cfg(feature = "solo")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use engine::{
    Backend, Draft, Engine, Error, Event, EventStream, FinishReason, Input, LoadOptions,
    ModelSource, Request, Summary, TokenId,
};
use futures::{FutureExt, StreamExt};
use testkit::model::{Architecture, ModelSpec, write};

struct Answer {
    text: Vec<String>,
    tokens: Vec<Vec<TokenId>>,
    reasons: Vec<Option<FinishReason>>,
    summary: Summary,
    logprobs: Vec<engine::TokenLogprob>,
}

async fn answer(engine: &Engine, request: Request) -> Result<Answer, Error> {
    let n = request.n as usize;
    collect(engine.generate(request).await?, n).await
}

async fn collect(mut stream: EventStream, n: usize) -> Result<Answer, Error> {
    let mut answer = Answer {
        text: vec![String::new(); n],
        tokens: vec![vec![]; n],
        reasons: vec![None; n],
        summary: Summary::default(),
        logprobs: vec![],
    };
    while let Some(event) = stream.next().await {
        match event? {
            Event::Started { .. } => {}
            Event::Delta { choice, delta } => {
                answer.text[choice as usize].push_str(&delta.content);
                answer.tokens[choice as usize].extend(delta.tokens);
                answer.logprobs.extend(delta.logprobs);
            }
            Event::Finished { choice, reason } => answer.reasons[choice as usize] = Some(reason),
            Event::Done(summary) => answer.summary = summary,
        }
    }
    assert!(
        answer.reasons.iter().all(Option::is_some),
        "a choice never ended"
    );
    Ok(answer)
}

struct Model {
    _folder: tempfile::TempDir,
    path: std::path::PathBuf,
}

fn model(seed: u64) -> Model {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    let mut spec = ModelSpec::tiny(Architecture::Qwen3);
    spec.seed = seed;
    write(&spec, &path).unwrap();
    Model {
        _folder: folder,
        path,
    }
}

fn options(model: &Model) -> LoadOptions {
    let mut options = LoadOptions::new(ModelSource::Path(model.path.clone()));
    options.context_tokens = Some(512);
    options.slots = Some(4);
    options.threads = Some(1);
    options.draft = Draft::None;
    options
}

async fn load(options: LoadOptions) -> Engine {
    tokio::task::spawn_blocking(|| Engine::load(options, |_| {}))
        .await
        .unwrap()
        .unwrap()
}

fn greedy(prompt: &str, tokens: u32) -> Request {
    let mut request = Request::new("", Input::Text(prompt.into()));
    request.sampling.temperature = 0.0;
    request.limits.max_tokens = Some(tokens);
    request.limits.ignore_eos = true;
    request
}

#[tokio::test]
async fn greedy_text_is_the_same_alone_and_in_a_crowd() {
    let model = model(1);
    let engine = load(options(&model)).await;
    let prompts: Vec<String> = (0..12)
        .map(|i| format!("prompt number {i} of a crowd"))
        .collect();
    let mut alone = vec![];
    for prompt in &prompts {
        let mut request = greedy(prompt, 24);
        request.logprobs = Some(2);
        alone.push(answer(&engine, request).await.unwrap());
    }
    let crowd = prompts.iter().map(|p| answer(&engine, greedy(p, 24)));
    let crowd = futures::future::join_all(crowd).await;
    let mut ties = 0;
    for (one, many) in alone.iter().zip(crowd) {
        let (tokens, many) = (&one.tokens[0], &many.unwrap().tokens[0]);
        assert_eq!(tokens.len(), 24);
        // Batches of other shapes round differently: of two tokens that are as likely, either may come.
        let other = tokens.iter().zip(many).position(|(one, many)| one != many);
        if let Some(at) = other {
            let top = &one.logprobs[at].top;
            let gap = top[0].2 - top[1].2;
            assert!(gap < TIE, "{tokens:?} but {many:?}, {gap} apart");
            ties += 1;
        }
    }
    assert!(ties < 3, "{ties} of 12 answers differ");
}

/// Log-probabilities that rounding may put in another order: the KV cache has eleven bits.
const TIE: f32 = 0.02;

#[tokio::test]
async fn a_repeated_prompt_is_found_in_the_cache() {
    let model = model(2);
    let engine = load(options(&model)).await;
    let prompt = "the same prompt again and again ".repeat(5);
    let first = answer(&engine, greedy(&prompt, 4)).await.unwrap();
    assert_eq!(first.summary.usage.cached_tokens, 0);
    let second = answer(&engine, greedy(&prompt, 4)).await.unwrap();
    assert_eq!(
        second.summary.usage.cached_tokens,
        second.summary.usage.prompt_tokens
    );
    assert_eq!(first.tokens, second.tokens);
    let mut fresh = greedy(&prompt, 4);
    fresh.cache_prompt = false;
    assert_eq!(
        answer(&engine, fresh)
            .await
            .unwrap()
            .summary
            .usage
            .cached_tokens,
        0
    );
}

#[tokio::test]
async fn a_prefix_that_made_room_for_another_request_comes_back() {
    // Plain attention, sliding windows, compressed attention.
    for architecture in [
        Architecture::Qwen3,
        Architecture::Gemma3,
        Architecture::Deepseek2,
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.gguf");
        write(&ModelSpec::tiny(architecture), &path).unwrap();
        let model = Model {
            _folder: folder,
            path,
        };
        let engine = load(options(&model)).await;
        let mut request = greedy(&"the same prompt again and again ".repeat(5), 12);
        request.logprobs = Some(2);
        let first = answer(&engine, request.clone()).await.unwrap();
        let other = greedy("something else, and rather long at that", 12);
        answer(&engine, other).await.unwrap();
        let second = answer(&engine, request).await.unwrap();
        let usage = second.summary.usage;
        assert_eq!(usage.cached_tokens, usage.prompt_tokens, "{architecture:?}");
        assert_same_but_for_rounding(&first, &second);
    }
}

#[tokio::test]
async fn choices_share_the_prompt_and_differ_by_seed() {
    let model = model(3);
    let engine = load(options(&model)).await;
    let mut request = greedy("several choices from one prompt, please", 8);
    request.sampling.temperature = 1.0;
    request.sampling.seed = Some(7);
    request.n = 6;
    let one = answer(&engine, request.clone()).await.unwrap();
    assert!(one.tokens.iter().any(|t| *t != one.tokens[0]));
    let steps = engine.load().steps_total;
    let again = answer(&engine, request).await.unwrap();
    assert_eq!(one.tokens, again.tokens, "same seed, same text");
    assert!(engine.load().steps_total > steps);
    assert_eq!(one.summary.usage.completion_tokens, 48);
}

/// The cache has room for the prompt and what four choices add to it, not for two prompts: choices that did not
/// share would run one after the other.
#[tokio::test]
async fn choices_share_the_cells_of_their_prompt() {
    const PROMPT_TOKENS: usize = 300;
    let model = model(3);
    let mut steps = vec![];
    for n in [1, 4] {
        let mut options = options(&model);
        options.context_tokens = Some(400);
        let engine = load(options).await;
        let mut request = greedy("", 8);
        // One token for each digit.
        request.input = Input::Text("0123456789".repeat(PROMPT_TOKENS / 10));
        request.sampling.temperature = 1.0;
        request.sampling.seed = Some(7);
        request.n = n;
        let usage = answer(&engine, request).await.unwrap().summary.usage;
        assert_eq!(usage.prompt_tokens as usize, PROMPT_TOKENS);
        assert_eq!(usage.completion_tokens, 8 * n);
        steps.push(engine.load().steps_total);
    }
    assert!(steps[1] <= steps[0] + 4, "{steps:?}");
}

#[tokio::test]
async fn limits_and_stops_end_an_answer() {
    let model = model(4);
    let engine = load(options(&model)).await;
    let full = answer(&engine, greedy("a b c", 30)).await.unwrap();
    assert_eq!(full.reasons[0], Some(FinishReason::Length));
    assert_eq!(full.tokens[0].len(), 30);
    // A stop string out of the middle of the text.
    let text: Vec<char> = full.text[0].chars().collect();
    let stop: String = text[text.len() / 2..text.len() / 2 + 3].iter().collect();
    let mut request = greedy("a b c", 30);
    request.limits.stop = vec![stop.clone()];
    let stopped = answer(&engine, request).await.unwrap();
    assert_eq!(stopped.reasons[0], Some(FinishReason::Stop));
    assert_eq!(stopped.text[0], full.text[0].split(&stop).next().unwrap());
    // The end of the context.
    let mut request = greedy(&"x".repeat(500), 1000);
    request.limits.max_tokens = None;
    let long = answer(&engine, request).await.unwrap();
    assert_eq!(long.reasons[0], Some(FinishReason::Length));
    let usage = long.summary.usage;
    assert_eq!(usage.prompt_tokens + usage.completion_tokens, 512);
}

#[tokio::test]
async fn bad_requests_are_refused_before_they_run() {
    let model = model(5);
    let engine = load(options(&model)).await;
    let refused = |request| async { answer(&engine, request).await.err().unwrap() };
    let long = refused(greedy(&"x".repeat(512), 4)).await;
    assert!(
        matches!(
            long,
            Error::ContextLengthExceeded {
                context_tokens: 512,
                ..
            }
        ),
        "{long}"
    );
    let huge = refused(greedy(&"x".repeat(1 << 20), 4)).await;
    assert!(
        matches!(huge, Error::ContextLengthExceeded { .. }),
        "{huge}"
    );
    let empty = refused(greedy("", 4)).await;
    assert!(matches!(empty, Error::InvalidRequest { .. }), "{empty}");
    let mut none = greedy("x", 4);
    none.n = 0;
    assert!(matches!(refused(none).await, Error::InvalidRequest { .. }));
    let mut bias = greedy("x", 4);
    bias.sampling.logit_bias = vec![(-1, 1.0)];
    assert!(matches!(refused(bias).await, Error::InvalidRequest { .. }));
    let tokens = Request::new("", Input::Tokens(vec![1 << 30]));
    assert!(matches!(
        refused(tokens).await,
        Error::InvalidRequest { .. }
    ));
    let embed = engine::EmbedRequest {
        model: String::new(),
        inputs: vec![engine::EmbedInput::Text("x".into())],
    };
    assert!(matches!(
        engine.embed(embed).await,
        Err(Error::Unsupported(_))
    ));
}

#[tokio::test]
async fn bias_and_logprobs() {
    let model = model(6);
    let engine = load(options(&model)).await;
    let mut request = greedy("what comes next", 5);
    request.logprobs = Some(3);
    let plain = answer(&engine, request.clone()).await.unwrap();
    assert_eq!(plain.logprobs.len(), 5);
    for (logprob, token) in plain.logprobs.iter().zip(&plain.tokens[0]) {
        assert_eq!(logprob.token, *token);
        assert_eq!(logprob.top[0].0, *token, "greedy takes the likeliest");
        assert_eq!(logprob.top.len(), 3);
        assert!(logprob.logprob <= 0.0 && logprob.top[0].2 >= logprob.top[1].2);
    }
    let first = plain.tokens[0][0];
    request.sampling.logit_bias = vec![(first, f32::NEG_INFINITY)];
    let banned = answer(&engine, request.clone()).await.unwrap();
    assert!(!banned.tokens[0].contains(&first));
    request.sampling.logit_bias = vec![(first, 1000.0)];
    let forced = answer(&engine, request).await.unwrap();
    assert_eq!(forced.tokens[0], vec![first; 5]);
}

#[tokio::test]
async fn every_sampler_gives_the_same_text_for_the_same_seed() {
    let model = model(7);
    let engine = load(options(&model)).await;
    let settings: [fn(&mut engine::Sampling); 8] = [
        |s| s.top_k = 5,
        |s| s.top_p = 0.5,
        |s| s.min_p = 0.3,
        |s| s.typical_p = 0.5,
        |s| (s.repeat_penalty, s.presence_penalty, s.frequency_penalty) = (1.3, 0.5, 0.5),
        |s| s.dry_multiplier = 0.8,
        |s| {
            s.mirostat = Some(engine::Mirostat {
                version: 1,
                tau: 4.0,
                eta: 0.1,
            })
        },
        |s| {
            s.mirostat = Some(engine::Mirostat {
                version: 2,
                tau: 4.0,
                eta: 0.1,
            })
        },
    ];
    for (index, set) in settings.into_iter().enumerate() {
        let mut request = greedy("say something", 16);
        request.sampling.temperature = 1.2;
        request.sampling.seed = Some(42);
        set(&mut request.sampling);
        let one = answer(&engine, request.clone()).await.unwrap();
        let two = answer(&engine, request.clone()).await.unwrap();
        assert_eq!(one.tokens, two.tokens, "setting {index}");
        request.sampling.seed = Some(43);
        let other = answer(&engine, request).await.unwrap();
        assert_ne!(one.tokens, other.tokens, "setting {index} ignores the seed");
    }
}

#[tokio::test]
async fn the_narrowest_settings_are_greedy() {
    let model = model(7);
    let engine = load(options(&model)).await;
    let mut request = greedy("say something", 16);
    // So that all answers come from batches of the same shapes.
    request.cache_prompt = false;
    let expected = answer(&engine, request.clone()).await.unwrap();
    let settings: [fn(&mut engine::Sampling); 4] = [
        |s| s.top_k = 1,
        |s| s.top_p = 1e-6,
        |s| s.min_p = 1.0,
        |s| {
            s.mirostat = Some(engine::Mirostat {
                version: 2,
                tau: 1e-6,
                eta: 0.1,
            });
        },
    ];
    for (index, set) in settings.into_iter().enumerate() {
        let mut narrow = request.clone();
        narrow.sampling.temperature = 1.5;
        narrow.sampling.seed = Some(index as u32);
        set(&mut narrow.sampling);
        let got = answer(&engine, narrow).await.unwrap();
        assert_eq!(got.tokens, expected.tokens, "setting {index}");
    }
}

#[tokio::test]
async fn penalties_look_back_on_the_prompt() {
    let model = model(7);
    let engine = load(options(&model)).await;
    let mut request = greedy("", 1);
    request.input = Input::Tokens(vec![65, 66, 67, 68]);
    request.sampling.logit_bias = vec![(65, 1000.0)];
    let biased = answer(&engine, request.clone()).await.unwrap();
    assert_eq!(biased.tokens[0], [65]);
    request.sampling.presence_penalty = 2000.0;
    let penalised = answer(&engine, request.clone()).await.unwrap();
    assert_ne!(penalised.tokens[0], [65]);
    // The prompt's first token is out of the window.
    request.sampling.penalty_last_n = 3;
    let forgotten = answer(&engine, request).await.unwrap();
    assert_eq!(forgotten.tokens[0], [65]);
}

#[test]
fn long_texts_are_read_on_blocking_threads() {
    const LONG: usize = 16 << 10;
    let model = model(7);
    let engine = Engine::load(options(&model), |_| {}).unwrap();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let (free, wait) = std::sync::mpsc::channel::<()>();
        let busy = tokio::task::spawn_blocking(move || wait.recv());
        let mut short = engine.tokenize("0123".into(), false, false);
        let tokens = (&mut short).now_or_never().expect("nobody need wait");
        assert_eq!(tokens.unwrap().len(), 4);
        let chat = engine::Chat {
            messages: vec![engine::Message::user("0".repeat(LONG))],
            ..engine::Chat::default()
        };
        let mut tokens = engine.tokenize("0".repeat(LONG), false, false);
        let mut bytes = engine.token_bytes(vec![TokenId::from(b'0'); LONG]);
        let mut text = engine.render(chat);
        // The only blocking thread does something else.
        assert!((&mut tokens).now_or_never().is_none());
        assert!((&mut bytes).now_or_never().is_none());
        assert!((&mut text).now_or_never().is_none());
        free.send(()).unwrap();
        busy.await.unwrap().unwrap();
        assert_eq!(tokens.await.unwrap().len(), LONG);
        assert_eq!(bytes.await.unwrap(), vec![b"0".to_vec(); LONG]);
        assert!(text.await.unwrap().len() > LONG);
    });
}

#[tokio::test]
async fn speculation_changes_no_greedy_text() {
    let model = model(8);
    let plain = load(options(&model)).await;
    let mut lookup = options(&model);
    lookup.draft = Draft::Auto;
    let lookup = load(lookup).await;
    let mut drafted = options(&model);
    drafted.draft = Draft::Path(model.path.clone());
    let drafted = load(drafted).await;
    let prompt = "one two three four one two three four one two three";
    let expected = answer(&plain, greedy(prompt, 60)).await.unwrap();
    for engine in [lookup, drafted] {
        let got = answer(&engine, greedy(prompt, 60)).await.unwrap();
        assert_eq!(got.tokens, expected.tokens);
        assert!(got.summary.usage.drafted_tokens > 0, "nothing was drafted");
        assert_eq!(
            engine.load().accepted_tokens_total,
            u64::from(got.summary.usage.accepted_tokens)
        );
    }
}

#[tokio::test]
async fn a_draft_model_with_another_vocabulary_is_refused() {
    let model_a = model(9);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.gguf");
    let mut spec = ModelSpec::tiny(Architecture::Qwen3);
    spec.vocab += 8;
    write(&spec, &path).unwrap();
    let mut options = options(&model_a);
    options.draft = Draft::Path(path);
    let error = Engine::load(options, |_| {}).unwrap_err();
    assert!(error.to_string().contains("vocabulary"), "{error}");
}

#[tokio::test]
async fn dropped_streams_free_their_slots() {
    let model = model(10);
    let engine = load(options(&model)).await;
    let mut streams = vec![];
    for i in 0..4 {
        let mut request = greedy(&format!("stream {i}"), 1);
        request.limits.max_tokens = None;
        let mut stream = engine.generate(request).await.unwrap();
        stream.next().await.unwrap().unwrap();
        streams.push(stream);
    }
    drop(streams);
    let before = engine.load().steps_total;
    // All slots were taken: these answers come only if they are free again.
    for i in 0..4 {
        answer(&engine, greedy(&format!("after {i}"), 2))
            .await
            .unwrap();
    }
    assert_eq!(engine.load().cancelled_total, 4);
    // Two or three steps for each answer. Streams that went on would take hundreds.
    let steps = engine.load().steps_total - before;
    assert!(steps < 40, "{steps} steps");
    engine
        .shutdown(std::time::Instant::now() + std::time::Duration::from_secs(5))
        .await;
    assert_eq!((engine.load().running, engine.load().waiting), (0, 0));
}

#[tokio::test]
async fn a_consumer_that_reads_nothing_holds_nobody_up_and_loses_nothing() {
    /// Far less than the time after which such a consumer is cut off.
    const HANG: Duration = Duration::from_secs(90);
    let model = model(15);
    let mut options = options(&model);
    options.slots = Some(1);
    let engine = load(options).await;
    let mut long = greedy("nobody reads this", 400);
    long.logprobs = Some(2);
    let expected = answer(&engine, long.clone()).await.unwrap();
    let unread = engine.generate(long).await.unwrap();
    // Until what fits into its channel has been computed.
    let mut steps = 0;
    while std::mem::replace(&mut steps, engine.load().steps_total) != engine.load().steps_total {
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let other = answer(&engine, greedy("somebody reads this", 8));
    let other = tokio::time::timeout(HANG, other).await.expect("held up");
    assert_eq!(other.unwrap().tokens[0].len(), 8);
    let late = collect(unread, 1).await.unwrap();
    assert_same_but_for_rounding(&expected, &late);
}

#[tokio::test]
async fn a_full_queue_says_so() {
    let model = model(11);
    let mut options = options(&model);
    (options.slots, options.queue_max) = (Some(1), Some(2));
    let engine = load(options).await;
    let mut endless = greedy("x", 1);
    endless.limits.max_tokens = None;
    let mut running = engine.generate(endless.clone()).await.unwrap();
    running.next().await.unwrap().unwrap();
    let _one = engine.generate(endless.clone()).await.unwrap();
    let _two = engine.generate(endless.clone()).await.unwrap();
    let error = engine.generate(endless).await.err().unwrap();
    assert!(
        matches!(
            error,
            Error::QueueFull {
                waiting: 2,
                retry_after_s: 1..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn shutdown_lets_answers_finish_and_refuses_new_ones() {
    let model = model(12);
    let engine = load(options(&model)).await;
    let mut stream = engine.generate(greedy("the last words", 40)).await.unwrap();
    stream.next().await.unwrap().unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    let (_, tokens) = tokio::join!(engine.shutdown(deadline), async {
        let mut tokens = 0;
        while let Some(event) = stream.next().await {
            if let Event::Delta { delta, .. } = event.unwrap() {
                tokens += delta.tokens.len();
            }
        }
        tokens
    });
    assert_eq!(tokens, 40);
    let error = engine.generate(greedy("too late", 1)).await.err().unwrap();
    assert_eq!(error, Error::ShuttingDown);
}

#[tokio::test]
async fn a_deadline_ends_what_still_runs() {
    let model = model(13);
    let engine = load(options(&model)).await;
    // A consumer that does not read: its answer can't finish by itself.
    let mut endless = greedy("x", 1);
    endless.limits.max_tokens = None;
    let mut stream = engine.generate(endless).await.unwrap();
    stream.next().await.unwrap().unwrap();
    engine.shutdown(std::time::Instant::now()).await;
    let mut last = None;
    while let Some(event) = stream.next().await {
        last = Some(event);
    }
    let last = last.unwrap();
    assert!(
        matches!(last, Err(Error::ShuttingDown) | Ok(Event::Done(_))),
        "{last:?}"
    );
}

/// Where two greedy answers part, the model must have been undecided: batches of other shapes
/// round differently. Anything else means that the KV cache held something wrong.
fn assert_same_but_for_rounding(expected: &Answer, got: &Answer) {
    let pairs = expected.tokens[0].iter().zip(&got.tokens[0]);
    if let Some(at) = pairs.clone().position(|(a, b)| a != b) {
        let top = &expected.logprobs[at].top;
        let margin = top[0].2 - top[1].2;
        assert!(
            margin < 0.02,
            "token {at} differs although its margin is {margin}"
        );
        assert!(top[..2].iter().any(|t| t.0 == got.tokens[0][at]));
    }
    assert_eq!(expected.tokens[0].len(), got.tokens[0].len());
}

#[tokio::test]
async fn an_overfull_cache_costs_time_and_not_answers() {
    let model = model(14);
    let mut options = options(&model);
    options.context_tokens = Some(160);
    let engine = load(options).await;
    let prompts: Vec<String> = (0..8)
        .map(|i| format!("{i} {}", "fills the cache ".repeat(2 + i)))
        .collect();
    let request = |prompt: &str| {
        let mut request = greedy(prompt, 40);
        request.logprobs = Some(2);
        request
    };
    let mut alone = vec![];
    for prompt in &prompts {
        let mut request = request(prompt);
        request.cache_prompt = false;
        alone.push(answer(&engine, request).await.unwrap());
    }
    let together = prompts.iter().map(|p| answer(&engine, request(p)));
    for (one, many) in alone.iter().zip(futures::future::join_all(together).await) {
        assert_same_but_for_rounding(one, &many.unwrap());
    }
}

#[tokio::test]
async fn broken_files_give_one_clear_error() {
    let good = model(15);
    let bytes = std::fs::read(&good.path).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let check = |name: &str, bytes: &[u8], expected: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let error = Engine::load(LoadOptions::new(ModelSource::Path(path)), |_| {}).unwrap_err();
        let text = error.to_string();
        assert!(
            matches!(error, Error::Load(_)) && text.contains(expected),
            "{name}: {text}"
        );
    };
    check("short.gguf", &bytes[..bytes.len() / 2], "truncated");
    check(
        "text.gguf",
        b"this is no model, whatever its name says",
        "GGUF",
    );
    check("empty.gguf", b"", "truncated");
    let missing = LoadOptions::new(ModelSource::Path(folder.path().join("none.gguf")));
    assert!(matches!(
        Engine::load(missing, |_| {}).unwrap_err(),
        Error::Load(_)
    ));
    // The header of a good file, another architecture of the same length.
    let at = bytes.windows(5).position(|w| w == b"qwen3").unwrap();
    let mut unknown = bytes.clone();
    unknown[at..at + 5].copy_from_slice(b"qwenX");
    check("unknown.gguf", &unknown, "qwenX");
}

#[test]
fn the_build_uses_what_the_cpu_has() {
    assert_eq!(engine::native_kernels(), Ok(()));
}
