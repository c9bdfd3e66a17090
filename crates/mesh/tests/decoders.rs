//! Foreign bytes: whatever they are, they are read or refused, quickly, and without a panic.
//!
//! The functions are those of the fuzz targets, see `mesh::fuzzing`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use mesh::fuzzing::{DECODERS, Decoder};
use proptest::prelude::*;

/// Beginnings of CBOR values that claim more than there can be: byte strings, texts, lists and maps
/// of 2^64 - 1, 2^32 - 1 and unknown length, and a tag.
const CLAIMS: [&[u8]; 13] = [
    &[0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0x7b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0x5a, 0xff, 0xff, 0xff, 0xff],
    &[0x7a, 0xff, 0xff, 0xff, 0xff],
    &[0x9a, 0xff, 0xff, 0xff, 0xff],
    &[0xba, 0xff, 0xff, 0xff, 0xff],
    &[0x5f],
    &[0x7f],
    &[0x9f],
    &[0xbf],
    &[0xdb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
];

/// One change of a sample.
#[derive(Debug, Clone)]
enum Edit {
    Flip(u8),
    Replace(u8),
    Insert(Vec<u8>),
    Remove(usize),
    Repeat(usize),
    Cut,
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        (0..8u8).prop_map(|bit| Edit::Flip(1 << bit)),
        any::<u8>().prop_map(Edit::Replace),
        proptest::collection::vec(any::<u8>(), 1..12).prop_map(Edit::Insert),
        (0..CLAIMS.len()).prop_map(|claim| Edit::Insert(CLAIMS[claim].to_vec())),
        (1..40usize).prop_map(Edit::Remove),
        (1..200usize).prop_map(Edit::Repeat),
        Just(Edit::Cut),
    ]
}

fn apply(bytes: &mut Vec<u8>, at: prop::sample::Index, edit: Edit) {
    if bytes.is_empty() {
        return;
    }
    let at = at.index(bytes.len());
    let until = |length: usize| (at + length).min(bytes.len());
    match edit {
        Edit::Flip(bits) => bytes[at] ^= bits,
        Edit::Replace(byte) => bytes[at] = byte,
        Edit::Insert(more) => drop(bytes.splice(at..at, more)),
        Edit::Remove(length) => drop(bytes.drain(at..until(length))),
        Edit::Repeat(length) => {
            let again = bytes[at..until(length)].to_vec();
            drop(bytes.splice(at..at, again));
        }
        Edit::Cut => bytes.truncate(at),
    }
}

#[test]
fn samples_are_accepted() {
    for Decoder {
        name,
        read,
        samples,
    } in DECODERS
    {
        let samples = samples();
        assert!(!samples.is_empty(), "{name}");
        for (number, sample) in samples.iter().enumerate() {
            assert!(read(sample), "{name}: sample {number}");
        }
    }
}

#[test]
fn every_decoder_has_its_fuzz_target() {
    let manifest = include_str!("../fuzz/Cargo.toml");
    for Decoder { name, .. } in DECODERS {
        assert!(
            manifest.contains(&format!("fuzz_targets/{name}.rs")),
            "{name}"
        );
    }
    let targets = manifest.matches("[[bin]]").count();
    assert_eq!(targets, DECODERS.len());
}

#[test]
fn claims_of_more_than_there_is_cost_nothing() {
    for Decoder {
        name,
        read,
        samples,
    } in DECODERS
    {
        for sample in samples() {
            for at in 0..sample.len() {
                for claim in CLAIMS {
                    let mut over = sample.clone();
                    let end = (at + claim.len()).min(over.len());
                    over.splice(at..end, claim.iter().copied());
                    // Inside of a byte string it is just bytes; elsewhere it must be refused before
                    // anything of that size is allocated, which would end the program here.
                    let _ = read(&over);
                }
            }
        }
        assert!(!read(CLAIMS[0]), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..1_000)) {
        for decoder in DECODERS {
            let _ = (decoder.read)(&bytes);
        }
    }

    #[test]
    fn changed_samples_are_read_or_refused(
        decoder in prop::sample::select(DECODERS.to_vec()),
        which in any::<prop::sample::Index>(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), edit()), 1..6),
    ) {
        let samples = (decoder.samples)();
        let mut bytes = samples[which.index(samples.len())].clone();
        for (at, edit) in edits {
            apply(&mut bytes, at, edit);
        }
        let _ = (decoder.read)(&bytes);
    }
}
