//! What a whole model can do, a split one can do as well, to the last bit.

use engine::{
    Backend, Draft, Engine, Event, Format, Input, LoadOptions, Request, TokenLogprob, Usage,
};
use futures::StreamExt;
use serde_json::json;

use crate::generation::{options, slices, split_with};
use crate::slices::Slices;

/// Tokens of an answer.
const TOKENS: u32 = 24;

/// What an engine said to one request: each choice's text, tokens and what they were drawn from.
#[derive(Debug, Default)]
struct Said {
    choices: Vec<(String, Vec<i32>, Vec<TokenLogprob>)>,
    usage: Usage,
}

async fn ask(engine: &Engine, request: &Request) -> Said {
    let mut said = Said::default();
    let n = usize::try_from(request.n).unwrap();
    said.choices.resize_with(n, Default::default);
    let mut events = engine.generate(request.clone()).await.unwrap();
    while let Some(event) = events.next().await {
        match event.unwrap() {
            Event::Delta { choice, delta } => {
                let (text, tokens, logprobs) = &mut said.choices[choice as usize];
                text.push_str(&delta.content);
                tokens.extend(delta.tokens);
                logprobs.extend(delta.logprobs);
            }
            Event::Done(summary) => said.usage = summary.usage,
            _ => {}
        }
    }
    said
}

fn request(prompt: &str, change: impl FnOnce(&mut Request)) -> Request {
    let mut request = Request::new("", Input::Text(prompt.into()));
    request.sampling.temperature = 0.0;
    request.limits.max_tokens = Some(TOKENS);
    request.limits.ignore_eos = true;
    change(&mut request);
    request
}

/// One after the other: in a crowd the batches depend on who comes when, and the last bits on them.
#[tokio::test]
async fn each_feature_gives_the_same_on_a_split_model() {
    let folder = tempfile::tempdir().unwrap();
    let slices = slices(&folder);
    let whole = Engine::load(options(&slices.whole), |_| {}).unwrap();
    let split = split_with(&slices, options);
    let schema = json!({
        "type": "object",
        "properties": { "a": { "enum": ["yes", "no"] } },
        "required": ["a"],
        "additionalProperties": false,
    });
    let requests = [
        ("plain", request("the rain", |_| {})),
        ("again", request("the rain", |_| {})),
        (
            "logprobs",
            request("a train", |request| request.logprobs = Some(3)),
        ),
        (
            "three choices",
            request("the rain in", |request| {
                request.n = 3;
                request.sampling.temperature = 1.0;
                request.sampling.seed = Some(7);
            }),
        ),
        (
            "penalties",
            request("a plain", |request| {
                request.sampling.repeat_penalty = 1.5;
                request.sampling.frequency_penalty = 0.5;
            }),
        ),
        (
            "schema",
            request("answer: ", |request| {
                request.format = Format::JsonSchema(schema);
                request.limits.ignore_eos = false;
            }),
        ),
        (
            "grammar",
            request("count: ", |request| {
                request.format = Format::Grammar("root ::= [0-9]+".into());
            }),
        ),
    ];
    for (what, request) in &requests {
        let wanted = ask(&whole, request).await;
        let got = ask(&split, request).await;
        assert_eq!(got.choices, wanted.choices, "{what}");
        let texts = || got.choices.iter().map(|(text, ..)| text.as_str());
        match *what {
            "again" => assert!(got.usage.cached_tokens > 0, "{:?}", got.usage),
            "logprobs" => assert_eq!(got.choices[0].2.len(), TOKENS as usize),
            "schema" => {
                let value: serde_json::Value =
                    serde_json::from_str(texts().next().unwrap()).unwrap();
                assert!(["yes", "no"].contains(&value["a"].as_str().unwrap()));
            }
            "grammar" => {
                let is_number = |text: &str| text.chars().all(|c| c.is_ascii_digit());
                assert!(texts().all(is_number), "{:?}", got.choices);
            }
            _ => {}
        }
    }
}

fn drafting(slices: &Slices) -> impl Fn(&std::path::Path) -> LoadOptions {
    let draft = Draft::Path(slices.whole.clone());
    move |path| LoadOptions {
        draft: draft.clone(),
        ..options(path)
    }
}

/// The model drafts for itself, so that all drafts are right.
#[tokio::test]
async fn a_draft_model_drafts_for_a_split_one() {
    let folder = tempfile::tempdir().unwrap();
    let slices = slices(&folder);
    let whole = Engine::load(options(&slices.whole), |_| {}).unwrap();
    let split = split_with(&slices, drafting(&slices));
    // Rows that are checked together may round otherwise than one by one; the first ones can't differ by that.
    let wanted = ask(&whole, &request("the rain", |_| {})).await;
    let got = ask(&split, &request("the rain", |_| {})).await;
    assert_eq!(got.choices[0].1.len(), TOKENS as usize);
    assert_eq!(got.choices[0].1[..2], wanted.choices[0].1[..2]);
    assert!(got.usage.drafted_tokens > 0, "{:?}", got.usage);
    assert!(got.usage.accepted_tokens > 0, "{:?}", got.usage);
}
