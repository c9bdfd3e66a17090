//! A made-up engine answers from fixed tokens; its host may die after any event.

use engine::{Input, Summary, TokenLogprob};
use proptest::prelude::*;

use super::*;

/// One token of the script and what it leads to.
#[derive(Debug, Clone)]
struct Token {
    id: TokenId,
    content: String,
    reasoning: String,
    call: Option<(u32, bool, String)>,
}

fn token() -> impl Strategy<Value = Token> {
    let call = proptest::option::weighted(0.3, (0..3_u32, any::<bool>(), "[a-zé]{0,3}"));
    (0..50_i32, "[a-zä€]{0,4}", "[x-z]{0,2}", call).prop_map(|(id, content, reasoning, call)| {
        Token {
            id,
            content,
            reasoning,
            call,
        }
    })
}

/// What an honest host says for `request`: everything from the beginning. `salt` makes its
/// identifiers its own; `group` tokens go into one delta.
fn answer(script: &[Vec<Token>], request: &Request, salt: u32, group: usize) -> Vec<Event> {
    let mut events = vec![Event::Started {
        prompt_tokens: 3,
        cached_tokens: 0,
    }];
    for (index, tokens) in script.iter().enumerate() {
        let choice = index as u32;
        if request
            .resume
            .get(index)
            .is_some_and(|resumed| resumed.finished)
        {
            continue;
        }
        let mut open = std::collections::BTreeSet::new();
        for tokens in tokens.chunks(group) {
            let mut delta = Delta::default();
            for token in tokens {
                delta.tokens.push(token.id);
                delta.logprobs.push(TokenLogprob {
                    token: token.id,
                    bytes: Vec::new(),
                    logprob: -1.0,
                    top: Vec::new(),
                });
                delta.content.push_str(&token.content);
                delta.reasoning.push_str(&token.reasoning);
                if let Some((call, _, arguments)) = &token.call {
                    let first = open.insert(*call);
                    delta.tool_calls.push(ToolCallDelta {
                        index: *call,
                        id: first.then(|| format!("call-{salt}-{call}")),
                        name: first.then(|| format!("tool{call}")),
                        arguments: arguments.clone(),
                    });
                }
            }
            events.push(Event::Delta { choice, delta });
        }
        events.push(Event::Finished {
            choice,
            reason: FinishReason::Stop,
        });
    }
    events.push(Event::Done(Summary::default()));
    events
}

/// All that a client got, put together.
#[derive(Debug, Default, PartialEq)]
struct Client {
    started: u32,
    content: Vec<String>,
    reasoning: Vec<String>,
    tokens: Vec<Vec<TokenId>>,
    logprobs: Vec<usize>,
    calls: Vec<std::collections::BTreeMap<u32, (u32, String, String)>>,
    finished: Vec<u32>,
    done: u32,
}

impl Client {
    fn new(choices: usize) -> Self {
        Self {
            content: vec![String::new(); choices],
            reasoning: vec![String::new(); choices],
            tokens: vec![Vec::new(); choices],
            logprobs: vec![0; choices],
            calls: vec![std::collections::BTreeMap::new(); choices],
            finished: vec![0; choices],
            ..Self::default()
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Started { .. } => self.started += 1,
            Event::Delta { choice, delta } => {
                let index = choice as usize;
                self.content[index] += &delta.content;
                self.reasoning[index] += &delta.reasoning;
                self.tokens[index].extend(delta.tokens);
                self.logprobs[index] += delta.logprobs.len();
                for call in delta.tool_calls {
                    let known = self.calls[index].entry(call.index).or_default();
                    known.0 += u32::from(call.id.is_some());
                    known.1 += call.name.as_deref().unwrap_or_default();
                    known.2 += &call.arguments;
                }
            }
            Event::Finished { choice, .. } => self.finished[choice as usize] += 1,
            Event::Done(_) => self.done += 1,
        }
    }
}

proptest! {
    /// Wherever hosts die, the client gets each part of the answer exactly once.
    #[test]
    fn nothing_is_lost_or_said_twice(
        script in prop::collection::vec(prop::collection::vec(token(), 1..12), 1..4),
        deaths in prop::collection::vec(0..30_usize, 0..4),
        groups in prop::collection::vec(1..4_usize, 5),
    ) {
        let mut request = Request::new("m", Input::Text("hi".into()));
        request.n = script.len() as u32;
        request.logprobs = Some(0);
        let mut whole = Client::new(script.len());
        answer(&script, &request, 0, 1).into_iter().for_each(|event| whole.take(event));

        let mut journal = Journal::new(request);
        let mut client = Client::new(script.len());
        for (host, group) in groups.iter().enumerate().take(deaths.len() + 1) {
            let asked = journal.resume();
            let events = answer(&script, &asked, host as u32, *group);
            let lives = deaths.get(host).copied().unwrap_or(events.len());
            for event in events.into_iter().take(lives) {
                if let Some(event) = journal.note(event).unwrap() {
                    client.take(event);
                }
            }
            if client.done > 0 {
                break;
            }
        }
        prop_assert_eq!(client, whole);
    }
}

#[test]
fn a_host_that_goes_on_from_something_else_is_noticed() {
    let delta = |tokens: &[TokenId], content: &str| Event::Delta {
        choice: 0,
        delta: Delta {
            tokens: tokens.to_vec(),
            content: content.into(),
            ..Delta::default()
        },
    };
    let journal = || {
        let mut journal = Journal::new(Request::new("m", Input::Text("hi".into())));
        journal.note(delta(&[1, 2], "aé")).unwrap();
        assert_eq!(journal.resume().resume[0].tokens, [1, 2]);
        journal
    };
    assert_eq!(journal().note(delta(&[1, 3], "aé")), Err(Diverged::Other));
    assert_eq!(journal().note(delta(&[1, 2], "é€")), Err(Diverged::Other));
    let elsewhere = Event::Finished {
        choice: 1,
        reason: FinishReason::Stop,
    };
    assert_eq!(journal().note(elsewhere), Err(Diverged::Unknown));
    assert_eq!(
        journal().note(delta(&[1, 2, 3], "aéb")),
        Ok(Some(delta(&[3], "b")))
    );
}

#[test]
fn a_host_that_says_more_than_was_asked_for_is_cut_off() {
    fn check(name: &str, event: impl Fn(usize) -> Event, times: usize) {
        let mut request = Request::new("m", Input::Text("hi".into()));
        request.limits.max_tokens = Some(8);
        request.logprobs = Some(1);
        let mut journal = Journal::new(request);
        let outcome = (0..times).find_map(|index| journal.note(event(index)).err());
        assert_eq!(outcome, Some(Diverged::TooMuch), "{name}");
    }
    let delta = |delta: Delta| Event::Delta { choice: 0, delta };
    let token = |top: Vec<(TokenId, Vec<u8>, f32)>, bytes: Vec<u8>| TokenLogprob {
        token: 1,
        bytes,
        logprob: -1.0,
        top,
    };
    let with = |logprobs: Vec<TokenLogprob>| {
        delta(Delta {
            tokens: vec![1],
            logprobs,
            ..Delta::default()
        })
    };
    check("tokens", |_| with(Vec::new()), 9);
    check(
        "nothing, without end",
        |_| delta(Delta::default()),
        EVENTS_BESIDE + 1,
    );
    let long = || "a".repeat(TEXT_BYTES_BESIDE + TEXT_BYTES_PER_TOKEN_MAX + 1);
    let content = |_| {
        delta(Delta {
            content: long(),
            ..Delta::default()
        })
    };
    check("text", content, 1);
    let call = |_| {
        delta(Delta {
            tool_calls: vec![ToolCallDelta {
                index: 0,
                id: None,
                name: Some(long()),
                arguments: String::new(),
            }],
            ..Delta::default()
        })
    };
    check("a name", call, 1);
    check(
        "logprobs",
        |_| with(vec![token(Vec::new(), Vec::new()); 2]),
        1,
    );
    let alternatives = vec![(1, Vec::new(), -1.0); 2];
    check(
        "alternatives",
        |_| with(vec![token(alternatives.clone(), Vec::new())]),
        1,
    );
    check(
        "pieces",
        |_| with(vec![token(Vec::new(), vec![0; 2_000])]),
        1,
    );
}
