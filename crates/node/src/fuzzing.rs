//! Owns the list of what reads bytes of peers in this crate, each as a function that may be given any
//! bytes: it must not panic, and what it reads must survive being written and read again.
//!
//! The targets in `fuzz/` and a property test call them.

use engine::{Input, Request};

use crate::journal::Journal;
use crate::wire::{Reply, call_bytes, read_call, read_reply, reply_bytes};

/// A call; true if the bytes were accepted.
pub fn call(bytes: &[u8]) -> bool {
    let Ok(read) = read_call(bytes) else {
        return false;
    };
    // Bytes and not values are compared: a number that is none differs from itself.
    let written = call_bytes(&read);
    let again = read_call(&written).map(|again| call_bytes(&again));
    assert_eq!(again.as_ref(), Ok(&written));
    true
}

/// A reply, and what takes it into an answer.
pub fn reply(bytes: &[u8]) -> bool {
    let Ok(read) = read_reply(bytes) else {
        return false;
    };
    let written = reply_bytes(&read);
    let again = read_reply(&written).map(|again| reply_bytes(&again));
    assert_eq!(again.as_ref(), Ok(&written));
    if let Reply::Event(event) = read {
        let mut request = Request::new("m", Input::Text("hi".into()));
        request.n = 2;
        request.logprobs = Some(2);
        let mut journal = Journal::new(request);
        // Twice from the first host, then from another.
        for _ in 0..2 {
            let _ = journal.note(event.clone());
        }
        let _ = journal.resume();
        let _ = journal.note(event);
    }
    true
}

/// Bytes that are accepted, to begin with: calls, then replies.
#[must_use]
pub fn samples() -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    use crate::wire::Call;
    let mut request = Request::new("m", Input::Text("hi".into()));
    request.sampling.seed = Some(1);
    let model = || "m".to_owned();
    let calls = [
        Call::Generate(Box::new(request)),
        Call::Describe { model: model() },
        Call::TokenBytes {
            model: model(),
            tokens: vec![1, 2],
        },
    ];
    let delta = engine::Delta {
        content: "a".into(),
        tokens: vec![7],
        ..engine::Delta::default()
    };
    let replies = [
        Reply::Accepted,
        Reply::Failed(engine::Error::ShuttingDown),
        Reply::Event(engine::Event::Delta { choice: 1, delta }),
        Reply::Vector(vec![0.5, f32::NAN]),
        Reply::Text("text".into()),
    ];
    (
        calls.iter().map(call_bytes).collect(),
        replies.iter().map(reply_bytes).collect(),
    )
}
