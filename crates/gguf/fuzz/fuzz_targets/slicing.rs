//! What every run of the fuzzer of slices does with its bytes. A plain test runs the same function.

use gguf::{Header, LayerMap, Model, PieceOrigin, Prefix, SliceRole, SplitArchitecture};

/// Largest slice that is written out, in bytes. What a header claims may be far larger.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Takes the bytes as a model and makes slices of it. Says how many could be planned.
pub(crate) fn check(bytes: &[u8]) -> u32 {
    let Ok(model) = Model::read([("fuzz".into(), bytes)]) else {
        return 0;
    };
    let Ok(map) = LayerMap::of(&model) else {
        return 0;
    };
    assert!(SplitArchitecture::of(map.architecture().name).is_some());
    assert!(map.cuts().is_sorted());
    assert!(map.cuts().iter().all(|&at| 0 < at && at < map.layers()));
    assert_eq!(map.layer_bytes().len(), map.layers() as usize);
    let middle = map.cuts().get(map.cuts().len() / 2).copied();
    let end = map.layers();
    let mut planned = 0;
    for (start, end) in [
        (0, end),
        (0, middle.unwrap_or(1)),
        (middle.unwrap_or(0), end),
        (1, 3),
    ] {
        for role in [SliceRole::Stage, SliceRole::Tail] {
            let Ok(plan) = map.plan(start..end, role) else {
                continue;
            };
            planned += 1;
            assert_eq!(plan.pieces().len(), plan.tensors().len());
            assert!(plan.ranges().iter().all(|r| r.bytes.start <= r.bytes.end));
            check_header(&plan, end - start);
            if plan.file_bytes() <= FILE_BYTES_MAX {
                let written = plan.write(&[bytes], Vec::new(), |_| true);
                assert_eq!(
                    written.map(|w| w.len() as u64).ok(),
                    Some(plan.file_bytes())
                );
            }
        }
    }
    planned
}

/// The header must be that of a readable model of so many layers, and the pieces must lie in it.
fn check_header(plan: &gguf::SlicePlan, layers: u32) {
    let Ok(header) = plan.header() else {
        panic!("a plan has no header");
    };
    let again = Header::read(&Prefix {
        bytes: &header,
        total: Some(plan.file_bytes()),
    });
    let Ok(again) = again else {
        panic!("the header of a slice cannot be read");
    };
    assert_eq!(again.metadata.block_count().ok(), Some(layers));
    assert_eq!(again.tensors, plan.tensors());
    for (piece, tensor) in plan.pieces().iter().zip(&again.tensors) {
        assert_eq!(again.file_range(tensor).ok().as_ref(), Some(&piece.target));
        if let PieceOrigin::Copy(range) = &piece.origin {
            let copied = range.bytes.end - range.bytes.start;
            assert_eq!(copied, piece.target.end - piece.target.start);
        }
    }
}
