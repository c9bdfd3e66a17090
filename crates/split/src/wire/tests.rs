use proptest::prelude::*;

use super::*;
use crate::fuzzing::DECODERS;
use crate::spec::Precision;

const FORMAT: FrameFormat = FrameFormat {
    width: 2,
    rows_max: 4,
};

fn frame(hidden: Vec<f32>) -> Frame {
    let rows = i32::try_from(hidden.len() / 2).unwrap();
    Frame {
        epoch: 1,
        number: 2,
        ops: vec![CacheOp::Clear],
        outcome: Outcome::Rows,
        busy_us: 7,
        positions: (0..rows).collect(),
        sequences: (0..rows).map(|_| 0).collect(),
        hidden,
    }
}

fn length_at(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

#[test]
fn samples_of_every_decoder_are_accepted() {
    for decoder in DECODERS {
        for sample in (decoder.samples)() {
            assert!((decoder.read)(&sample), "{}", decoder.name);
        }
    }
}

#[test]
fn every_decoder_has_its_fuzz_target() {
    let manifest = include_str!("../../fuzz/Cargo.toml");
    for decoder in DECODERS {
        let path = format!("fuzz_targets/{}.rs", decoder.name);
        assert!(manifest.contains(&path), "{path}");
    }
    assert_eq!(manifest.matches("[[bin]]").count(), DECODERS.len());
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for decoder in DECODERS {
            let _ = (decoder.read)(&bytes);
        }
    }

    #[test]
    fn changed_samples_make_no_decoder_panic(
        which in any::<prop::sample::Index>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        end in any::<prop::sample::Index>(),
    ) {
        for decoder in DECODERS {
            let samples = (decoder.samples)();
            let mut bytes = which.get(&samples).clone();
            for (at, value) in &changes {
                let at = at.index(bytes.len());
                bytes[at] = *value;
            }
            let _ = (decoder.read)(&bytes);
            bytes.truncate(end.index(bytes.len() + 1));
            let _ = (decoder.read)(&bytes);
        }
    }
}

#[test]
fn f16_halves_the_rows_and_is_refused_for_a_value_that_overflows() {
    let small = frame(vec![0.5, -1.25, 3.0, 65_504.0]);
    let full = encode_frame(&small, 2, Precision::F32);
    let half = encode_frame(&small, 2, Precision::F16);
    assert_eq!(full.len() - half.len(), 8);
    assert_eq!(decode_frame(&half, &FORMAT).unwrap(), small);

    for value in [65_505.0, -1e6, f32::INFINITY, f32::NAN] {
        let large = frame(vec![value, 1.0]);
        let bytes = encode_frame(&large, 2, Precision::F16);
        assert_eq!(bytes, encode_frame(&large, 2, Precision::F32), "{value}");
    }
}

#[test]
fn frames_beyond_the_ring_s_limits_are_refused_before_anything_is_allocated() {
    let bytes = encode_frame(&frame(vec![1.0; 8]), 2, Precision::F32);
    assert!(decode_frame(&bytes, &FORMAT).is_ok());
    let range = |at, value| {
        let mut bytes = bytes.clone();
        length_at(&mut bytes, at, value);
        match decode_frame(&bytes, &FORMAT) {
            Err(WireError::Range { what, .. }) => what,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(range(16, u32::MAX), "number of operations");
    assert_eq!(range(20, 5), "number of rows");
    assert_eq!(range(24, 1 << 31), "width");
    assert_eq!(range(32, 9), "code of an operation");

    let check = |at: usize, value: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = value;
        assert_eq!(decode_frame(&bytes, &FORMAT), Err(WireError::Magic));
    };
    check(0, b'X');
    check(2, 1);
    check(3, 16);
    let short = decode_frame(&bytes[..bytes.len() - 1], &FORMAT);
    assert!(matches!(short, Err(WireError::Length { .. })));
}

#[tokio::test]
async fn streams_end_between_frames_or_are_broken() {
    let frame = frame(vec![1.0; 8]);
    let bytes = encode_frame(&frame, 2, Precision::F32);
    let twice = [bytes.clone(), bytes.clone()].concat();
    let mut stream = twice.as_slice();
    for _ in 0..2 {
        let read = read_frame(&mut stream, &FORMAT).await.unwrap();
        assert_eq!(read.as_ref(), Some(&frame));
    }
    assert_eq!(read_frame(&mut stream, &FORMAT).await.unwrap(), None);
    for end in [1, 31, 32, bytes.len() - 1] {
        let read = read_frame(&mut &bytes[..end], &FORMAT).await;
        assert!(matches!(read, Err(FrameStreamError::Broken(_))), "{end}");
    }

    let mut bytes = Vec::new();
    write_message(&mut bytes, b"one").await.unwrap();
    let read = read_message(&mut bytes.as_slice()).await.unwrap();
    assert_eq!(read.as_deref(), Some(b"one".as_slice()));
    assert!(read_message(&mut [].as_slice()).await.unwrap().is_none());
    let long = read_message(&mut [255; 8].as_slice()).await;
    assert!(matches!(long, Err(MessageStreamError::TooLong { .. })));
    let broken = read_message(&mut &bytes[..5]).await;
    assert!(matches!(broken, Err(MessageStreamError::Broken(_))));
}
