//! How losses are told: what is read from streams, and what the table says of them.

use std::time::{Duration, Instant};

use crate::losses::said::{Parting, Token};
use crate::losses::{Loss, Phase, Said, Subject, pause};

/// An answer that has ended, with the tokens of its text and what was likeliest beside each.
fn said(text: &str, others: &str) -> Said {
    let token = |letter: char, logprob| (letter.to_string().into_bytes(), logprob);
    let tokens = text.chars().zip(others.chars()).map(|(own, other)| {
        let (bytes, logprob) = token(own, -0.5);
        Token {
            top: vec![(bytes.clone(), logprob), token(other, -0.75)],
            bytes,
            logprob,
        }
    });
    Said {
        text: text.to_owned(),
        tokens: tokens.collect(),
        finish_reasons: vec!["length".to_owned()],
        completion_tokens: vec![text.len() as u64],
        is_whole: true,
        last_line: "data: [DONE]".to_owned(),
    }
}

fn loss(subject: Subject) -> Loss<'static> {
    Loss {
        subject,
        harm: "kill -9 of worker 1",
        phase: Phase::Answer,
        letters: 3,
        pause: Some(Duration::from_millis(7_140)),
    }
}

#[test]
fn tells_from_where_on_texts_differ_and_how_close_that_was() {
    let whole = said("abcd", "ABCD");
    assert_eq!(said("abcd", "xxxx").parting(&whole), None);
    let parting = |token, gap| {
        Some(Parting {
            token: Some(token),
            gap,
        })
    };
    assert_eq!(said("abCx", "xxxx").parting(&whole), parting(2, Some(0.25)));
    assert_eq!(said("xbcd", "xxxx").parting(&whole), parting(0, None));
    let mut other = said("abx", "xxx");
    other.tokens[1].logprob = -0.625;
    other.tokens[2].logprob = -9.0;
    assert_eq!(other.shift(&whole), 0.125);
    let same = said("abcd", "xxxx");
    let texts = [same, other, said("abCx", "xxxx")];
    assert_eq!(
        loss(Subject::Starter).line(&texts, Some(&whole)),
        "| starter | kill -9 of worker 1 | answer | 3 | 3 | 1 | 3 | 0.25000 | 0.12500 | 7.1 |"
    );
}

#[test]
fn a_stream_that_was_lost_is_not_counted_as_completed() {
    let texts = [
        said("abc", ""),
        said("abd", ""),
        Said::of("data: {\"choices\":[{\"delta\":{\"content\":\"ab\"}}]}\n\n"),
        Said::of(""),
    ];
    assert_eq!(
        loss(Subject::Alphabet).line(&texts, None),
        "| alphabet | kill -9 of worker 1 | answer | 4 | 2 | 1 |  |  |  | 7.1 |"
    );
    // What an undisturbed run says is not asked then.
    assert_eq!(
        loss(Subject::HalfBillion).line(&texts, None),
        "| half-b | kill -9 of worker 1 | answer | 4 | 2 |  |  |  |  | 7.1 |"
    );
}

/// The events of a stream, and the mark at the end of it.
fn stream(chunks: &[&str]) -> String {
    let chunks = chunks.iter().map(|chunk| format!("data: {chunk}\n\n"));
    chunks.collect::<String>() + "data: [DONE]\n\n"
}

#[test]
fn reads_tokens_from_a_stream() {
    let token = r#"{"token":"a","logprob":-0.5,"bytes":[97],"top_logprobs":[{"token":"A","logprob":-0.75,"bytes":[65]}]}"#;
    let choice = format!(
        r#"{{"index":0,"delta":{{"content":"a"}},"finish_reason":"length","logprobs":{{"content":[{token}]}}}}"#
    );
    let chunk = format!(r#"{{"choices":[{choice}],"usage":null}}"#);
    let usage = r#"{"choices":[],"usage":{"completion_tokens":1}}"#;
    let read = Said::of(&stream(&[&chunk, usage]));
    read.assert_ends_after(1);
    let top = vec![(b"A".to_vec(), -0.75)];
    let token = Token {
        bytes: b"a".to_vec(),
        logprob: -0.5,
        top,
    };
    let wanted = Said {
        tokens: vec![token],
        ..said("a", "")
    };
    assert_eq!(read, wanted);
}

#[test]
fn an_answer_has_ended_when_its_reason_its_count_and_the_mark_are_there() {
    let chunk = r#"{"choices":[{"delta":{"content":"a"},"finish_reason":null}]}"#;
    let end = r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#;
    let usage = r#"{"choices":[],"usage":{"completion_tokens":1}}"#;
    let error = r#"{"error":{"message":"the ring broke"}}"#;
    let check = |stream: &str, has_ended| {
        let said = Said::of(stream);
        assert_eq!(said.has_ended(), has_ended, "{said:?}");
    };
    let whole = stream(&[chunk, end, usage]);
    check(&whole, true);
    check(&stream(&[chunk, usage]), false);
    check(&stream(&[chunk, end]), false);
    check(&stream(&[chunk, end, end, usage]), false);
    check(&stream(&[chunk, end, usage, error]), false);
    for cut in 1..whole.len() {
        check(&whole[..whole.len() - cut], false);
    }
    let refused = Said::of(r#"{"error":{"message":"nobody serves it"}}"#);
    assert!(!refused.has_ended());
    assert!(refused.last_line.contains("nobody serves it"));
}

#[test]
fn a_pause_is_the_longest_time_without_a_word_after_the_loss() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let arrivals = [at(1), at(9), at(12), at(13)];
    assert_eq!(pause(at(8), &arrivals), Duration::from_secs(3));
    assert_eq!(pause(at(13), &arrivals), Duration::ZERO);
}
