use engine::{Delta, Event, Mirostat, ModelInfo, Request};
use mesh::codec;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::*;
use crate::fuzzing::{self, full_request};

#[test]
fn calls_come_back_whole() {
    for call in fuzzing::calls() {
        assert_eq!(read_call(&call_bytes(&call)), Ok(call));
    }
}

#[test]
fn replies_come_back_whole() {
    for reply in fuzzing::replies() {
        assert_eq!(read_reply(&reply_bytes(&reply)), Ok(reply));
    }
}

#[test]
fn a_token_costs_few_bytes() {
    let reply = Reply::Event(Event::Delta {
        choice: 0,
        delta: Delta {
            content: " word".into(),
            tokens: vec![12_345],
            ..Delta::default()
        },
    });
    assert!(
        reply_bytes(&reply).len() <= 24,
        "{}",
        reply_bytes(&reply).len()
    );
}

#[test]
fn numbers_that_no_ingress_sends_are_refused() {
    let check = |change: fn(&mut Request)| {
        let mut request = full_request();
        change(&mut request);
        let read = read_call(&call_bytes(&Call::Generate(Box::new(request))));
        assert!(matches!(read, Err(WireError::Range(_))), "{read:?}");
    };
    check(|r| r.n = 0);
    check(|r| r.n = u32::MAX);
    check(|r| r.sampling.temperature = f32::NAN);
    check(|r| r.sampling.top_p = f32::INFINITY);
    check(|r| r.sampling.logit_bias.push((1, f32::NAN)));
    check(|r| {
        r.sampling.mirostat = Some(Mirostat {
            version: 3,
            tau: 1.0,
            eta: 1.0,
        });
    });
}

#[test]
fn names_that_no_model_has_are_not_taken_up() {
    let read = |model: &str, fingerprint: &str| {
        read_call(&call_bytes(&Call::TakeUp(TakeUp {
            model: model.into(),
            fingerprint: fingerprint.into(),
            context_tokens: u32::MAX,
            slots: 0,
            fetch: false,
            tell_context: false,
        })))
    };
    assert!(read("m", "f").is_ok());
    let long = "m".repeat(1_000);
    let odd = [("", "f"), ("m", ""), (&*long, "f"), ("m", &*long)];
    let hidden = [("m\n", "f"), ("\u{1b}[2Jm", "f"), ("m\u{7f}", "f")];
    for (model, fingerprint) in odd.into_iter().chain(hidden) {
        let read = read(model, fingerprint);
        assert!(matches!(read, Err(WireError::Range(_))), "{read:?}");
    }
}

/// What programs ask that know nothing of files that are fetched, or of context that would have room.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum EarlierCall {
    TakeUp { model: String, fingerprint: String },
}

#[test]
fn models_are_asked_for_across_versions() {
    let earlier = EarlierCall::TakeUp {
        model: "m".into(),
        fingerprint: "f".into(),
    };
    let wanted = TakeUp {
        model: "m".into(),
        fingerprint: "f".into(),
        context_tokens: 0,
        slots: 0,
        fetch: false,
        tell_context: false,
    };
    let read = read_call(&codec::encode(&earlier));
    assert_eq!(read, Ok(Call::TakeUp(wanted.clone())));
    let now = Call::TakeUp(TakeUp {
        fetch: true,
        tell_context: true,
        ..wanted
    });
    let read = codec::decode::<EarlierCall>(&call_bytes(&now), CALL_BYTES_MAX);
    assert_eq!(read, Ok(earlier));
}

#[test]
fn no_more_of_a_file_is_there_than_all_of_it() {
    let read = |percent| read_reply(&reply_bytes(&Reply::Fetching(percent)));
    for percent in [0, 100] {
        assert_eq!(read(percent), Ok(Reply::Fetching(percent)));
    }
    assert!(matches!(read(101), Err(WireError::Range(_))));
}

#[test]
fn an_embedding_is_no_longer_than_any_model_makes_them() {
    let read = |values| read_reply(&reply_bytes(&Reply::Vector(vec![0.5; values])));
    let longest = vec![0.5; VECTOR_VALUES_MAX];
    assert_eq!(read(VECTOR_VALUES_MAX), Ok(Reply::Vector(longest)));
    let longer = read(VECTOR_VALUES_MAX + 1);
    assert!(matches!(longer, Err(WireError::Decode(_))));
}

#[test]
fn a_description_keeps_little_of_long_texts() {
    let mut known = fuzzing::replies().into_iter();
    let known = known.find_map(|reply| match reply {
        Reply::Model(info) => Some(*info),
        _ => None,
    });
    let long = "é".repeat(1 << 20);
    let told = ModelInfo {
        name: long.clone(),
        architecture: long.clone(),
        quantization: long.clone(),
        fingerprint: long.clone(),
        ..known.unwrap()
    };
    let read = read_reply(&reply_bytes(&Reply::Model(Box::new(told))));
    let Ok(Reply::Model(kept)) = read else {
        panic!("{read:?}");
    };
    for text in [
        &kept.name,
        &kept.architecture,
        &kept.quantization,
        &kept.fingerprint,
    ] {
        assert!(long.starts_with(text) && (40..=128).contains(&text.len()));
        assert!(text.capacity() <= 256, "{} bytes", text.capacity());
    }
}

#[test]
fn samples_of_the_fuzz_targets_are_accepted() {
    let (calls, replies) = (fuzzing::samples("call"), fuzzing::samples("reply"));
    assert!(!calls.is_empty() && !replies.is_empty());
    assert!(calls.iter().all(|bytes| fuzzing::call(bytes)));
    assert!(replies.iter().all(|bytes| fuzzing::reply(bytes)));
    assert!(!fuzzing::call(b"") && !fuzzing::reply(b"\xff"));
    let (asks, trips) = (fuzzing::samples("trips_ask"), fuzzing::samples("trips"));
    assert!(!asks.is_empty() && !trips.is_empty());
    assert!(asks.iter().all(|bytes| fuzzing::trips_ask(bytes)));
    assert!(trips.iter().all(|bytes| fuzzing::trips(bytes)));
    assert!(!fuzzing::trips_ask(b"") && !fuzzing::trips(b"\xff"));
}

proptest! {
    #[test]
    fn foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = fuzzing::call(&bytes);
        let _ = fuzzing::reply(&bytes);
        let _ = fuzzing::trips_ask(&bytes);
        let _ = fuzzing::trips(&bytes);
    }

    #[test]
    fn damaged_samples_never_panic(
        which: prop::sample::Index,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let (calls, replies) = (fuzzing::samples("call"), fuzzing::samples("reply"));
        let (asks, trips) = (fuzzing::samples("trips_ask"), fuzzing::samples("trips"));
        for (samples, read) in [
            (calls, fuzzing::call as fn(&[u8]) -> bool),
            (replies, fuzzing::reply),
            (asks, fuzzing::trips_ask),
            (trips, fuzzing::trips),
        ] {
            let mut bytes = samples[which.index(samples.len())].clone();
            for (at, byte) in &edits {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            let _ = read(&bytes);
        }
    }

    #[test]
    fn damaged_messages_never_panic(at in 0..4_000_usize, byte: u8) {
        let mut bytes = call_bytes(&Call::Generate(Box::new(full_request())));
        let index = at % bytes.len();
        bytes[index] = byte;
        let _ = read_call(&bytes);
        bytes.truncate(index);
        prop_assert!(read_call(&bytes).is_err());
    }
}
