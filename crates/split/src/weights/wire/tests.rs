//! Messages and frames come back, and foreign ones do no harm.

use proptest::prelude::*;

use super::*;

fn asks() -> impl Strategy<Value = Ask> {
    let model = any::<[u8; 32]>().prop_map(Fingerprint);
    let id = (any::<u32>(), any::<u32>()).prop_map(|(tensor, number)| ChunkId { tensor, number });
    let ids = prop::collection::vec(id, 1..=CHUNKS_PER_ASK);
    let roles = vec![SliceRole::Stage, SliceRole::Tail, SliceRole::Whole];
    let slice = (0u32..500, 1u32..500, prop::sample::select(roles));
    prop_oneof![
        model.clone().prop_map(Ask::Headers),
        model.clone().prop_map(Ask::Holdings),
        (model.clone(), slice).prop_map(|(model, (first, len, role))| {
            let layers = first..first + len;
            Ask::Manifest(SliceKey {
                model,
                layers,
                role,
            })
        }),
        (model, ids).prop_map(|(model, ids)| Ask::Chunks(model, ids)),
    ]
}

fn answers() -> impl Strategy<Value = Answer> {
    use Refusal::{Busy, Closed, Failed, Unknown};
    prop_oneof![
        prop::sample::select(vec![Unknown, Closed, Busy, Failed]).prop_map(Answer::Refused),
        Just(Answer::Alive),
        any::<u64>().prop_map(Answer::Body),
        prop::collection::vec(any::<u8>(), 1..300).prop_map(Answer::Data),
    ]
}

proptest! {
    #[test]
    fn asks_come_back(ask in asks()) {
        let bytes = ask.to_bytes();
        prop_assert!(bytes.len() <= ASK_BYTES_MAX);
        prop_assert_eq!(Ask::from_bytes(&bytes).unwrap(), ask.clone());
        // With anything missing or more it is another ask, or none.
        prop_assert_ne!(Ask::from_bytes(&bytes[..bytes.len() - 1]), Ok(ask.clone()));
        prop_assert_ne!(Ask::from_bytes(&[&bytes[..], &[0]].concat()), Ok(ask));
    }

    #[test]
    fn answers_come_back(answer in answers()) {
        prop_assert_eq!(Answer::from_bytes(answer.to_bytes()).unwrap(), answer);
    }

    #[test]
    fn foreign_bytes_do_no_harm(
        bytes in prop::collection::vec(any::<u8>(), 0..700),
        kind in 0u8..5,
    ) {
        let _ = Ask::from_bytes(&bytes);
        let _ = Answer::from_bytes(bytes.clone());
        let mut ask = bytes;
        if let [version, second, ..] = ask.as_mut_slice() {
            (*version, *second) = (VERSION, kind);
        }
        if let Ok(read) = Ask::from_bytes(&ask) {
            prop_assert_eq!(read.to_bytes(), ask);
        }
    }
}

#[tokio::test]
async fn frames_come_back_and_long_ones_are_refused() {
    let mut stream = Vec::new();
    let answers = [Answer::Body(7), Answer::Data(vec![1; 7]), Answer::Alive];
    for answer in &answers {
        write_answer(&mut stream, answer).await.unwrap();
    }
    let mut read = stream.as_slice();
    for answer in answers {
        let frame = read_frame(&mut read, ANSWER_BYTES_MAX).await.unwrap();
        assert_eq!(Answer::from_bytes(frame.unwrap()).unwrap(), answer);
    }
    assert!(read_frame(&mut read, 9).await.unwrap().is_none());
    for (bytes, too_long) in [
        (&[9, 0, 0, 0, 1][..], false),
        (&[255; 8], true),
        (&[1], false),
    ] {
        let mut read = bytes;
        let error = read_frame(&mut read, ANSWER_BYTES_MAX).await.unwrap_err();
        assert_eq!(matches!(error, FrameError::TooLong { .. }), too_long);
    }
}

#[test]
fn bits_are_packed_from_the_lowest() {
    let bits = [true, false, false, true, false, false, false, false, true];
    assert_eq!(pack_bits(bits.into_iter()), [0b1001, 1]);
    assert!(pack_bits(std::iter::empty()).is_empty());
}
