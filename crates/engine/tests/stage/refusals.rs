//! Parts evaluate nothing that does not fit, and keep what they hold.

use engine::stage::{
    EmbeddingTable, StageBatch, StageError, StageOptions, StageRunner, memory_needed,
};
use testkit::model::{self, Architecture, ModelSpec};

use crate::slices::{self, Slices};

fn slices(folder: &tempfile::TempDir) -> Slices {
    let path = folder.path().join("whole.gguf");
    let spec = ModelSpec::tiny(Architecture::Llama);
    model::write(&spec, &path).unwrap();
    slices::cut(&path, 2, folder.path())
}

fn small() -> StageOptions {
    StageOptions {
        kv_tokens: 256,
        sequences: 2,
        rows_max: 8,
        ..crate::options()
    }
}

fn batch<'a>(hidden: &'a [f32], positions: &'a [i32], sequences: &'a [i32]) -> StageBatch<'a> {
    StageBatch {
        hidden,
        positions,
        sequences,
    }
}

#[test]
fn wrong_batches_are_refused_and_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = StageRunner::open(&slices(&folder).parts[0], &small()).unwrap();
    assert_eq!((stage.width(), stage.layers()), (64, 2));
    let rows = vec![0.25f32; 64 * 9];
    let mut bad = rows.clone();
    bad[64 + 3] = f32::NAN;
    let mut infinite = rows.clone();
    infinite[0] = f32::INFINITY;
    let row = &rows[..64];
    let (two, nine): (&[i32], Vec<i32>) = (&[0, 1], (0..9).collect());
    let size = |what, got, wanted| StageError::Size { what, got, wanted };
    let sequence = |sequence| StageError::Sequence {
        sequence,
        sequences: 2,
    };
    let position = |got, wanted| StageError::Position {
        sequence: 0,
        got,
        wanted,
    };
    let rows_of = |rows| StageError::Rows { rows, rows_max: 8 };
    let table = [
        (batch(&[], &[], &[]), rows_of(0)),
        (batch(&rows, &nine, &[0; 9]), rows_of(9)),
        (batch(&row[1..], &[0], &[0]), size("values", 63, 64)),
        (batch(row, &[0], &[0, 0]), size("sequences", 2, 1)),
        (batch(row, &[0], &[2]), sequence(2)),
        (batch(row, &[0], &[-1]), sequence(-1)),
        (batch(row, &[1], &[0]), position(1, 0)),
        (batch(row, &[i32::MIN], &[0]), position(i32::MIN, 0)),
        (
            batch(&rows[..128], two, &[0, 1]),
            StageError::Position {
                sequence: 1,
                got: 1,
                wanted: 0,
            },
        ),
        (batch(&rows[..128], &[0, 0], &[0, 0]), position(0, 1)),
        (
            batch(&bad[..128], two, &[0, 0]),
            StageError::NotFinite { row: 1 },
        ),
        (
            batch(&infinite[..64], &[0], &[0]),
            StageError::NotFinite { row: 0 },
        ),
    ];
    for (batch, wanted) in table {
        assert_eq!(stage.run(&batch).unwrap_err(), wanted);
        assert_eq!(stage.tokens(0), Ok(0));
    }
    let out = stage.run(&batch(&rows[..128], two, &[0, 0])).unwrap();
    assert!(out.len() == 128 && out.iter().all(|v| v.is_finite()) && out != &rows[..128]);
    assert_eq!(stage.tokens(0), Ok(2));
}

#[test]
fn sequences_are_copied_cut_and_cleared() {
    let folder = tempfile::tempdir().unwrap();
    let mut stage = StageRunner::open(&slices(&folder).parts[0], &small()).unwrap();
    let rows: Vec<f32> = (0..64 * 4).map(|i| (i % 7) as f32 - 3.0).collect();
    let first = stage
        .run(&batch(&rows, &[0, 1, 2, 3], &[0; 4]))
        .unwrap()
        .to_vec();
    stage.copy(0, 1, 3).unwrap();
    stage.cut(0, 2).unwrap();
    assert_eq!((stage.tokens(0), stage.tokens(1)), (Ok(2), Ok(3)));
    // The same row at the same place gives the same again, from the original and from the copy.
    let again = stage.run(&batch(&rows[128..], &[2, 3], &[0, 1])).unwrap();
    let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-3);
    assert!(near(again, &first[128..]));
    stage.copy(0, 1, 1).unwrap();
    assert_eq!(stage.tokens(1), Ok(1), "a copy replaces what was there");
    for wrong in [stage.copy(0, 2, 1), stage.copy(9, 0, 1), stage.cut(2, 0)] {
        assert!(matches!(wrong, Err(StageError::Sequence { .. })));
    }
    stage.clear();
    assert_eq!((stage.tokens(0), stage.tokens(1)), (Ok(0), Ok(0)));
}

#[test]
fn a_full_cache_leaves_all_parts_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let slices = slices(&folder);
    let mut split = crate::pipeline(&slices, &small());
    let mut run = |from: i32, rows: i32, sequence: i32| {
        let positions: Vec<i32> = (from..from + rows).collect();
        let n = rows as usize;
        split.run(&vec![5; n], &positions, &vec![sequence; n], &vec![true; n])
    };
    // 256 cells: two sequences of 124, then 8 free ones.
    for step in 0..31 {
        run(step * 4, 4, 0).unwrap();
        run(step * 4, 4, 1).unwrap();
    }
    run(124, 7, 0).unwrap();
    for _ in 0..2 {
        assert_eq!(run(124, 2, 1), Err(StageError::NoRoom));
    }
    run(124, 1, 1).unwrap();
}

#[test]
fn tokens_are_looked_up_as_llama_cpp_does() {
    let folder = tempfile::tempdir().unwrap();
    let slices = slices(&folder);
    let mut table = EmbeddingTable::open(&slices.whole).unwrap();
    let mut rows = vec![1.0; 3];
    table.look_up(&[3, 0, 3], &mut rows).unwrap();
    assert_eq!(rows.len(), 3 * table.width());
    assert_eq!(rows[..64], rows[128..]);
    assert_ne!(rows[..64], rows[64..128]);
    for token in [-1, 640, i32::MAX] {
        let error = table.look_up(&[0, token], &mut rows).unwrap_err();
        assert_eq!(error, StageError::Token { token });
    }
    let missing = EmbeddingTable::open(&folder.path().join("none.gguf"));
    assert!(matches!(missing, Err(StageError::Embedding(_))));
}

#[test]
fn memory_is_known_before_loading() {
    let folder = tempfile::tempdir().unwrap();
    let slices = slices(&folder);
    let memory = memory_needed(&slices.parts[0], &small()).unwrap();
    // Two layers, two heads of 16, keys and values of 2 bytes.
    assert_eq!(memory.kv, 256 * 2 * 2 * 16 * 2 * 2);
    assert!(memory.total() > memory.weights && memory.weights > 0);
    let stage = StageRunner::open(&slices.parts[0], &small()).unwrap();
    assert_eq!(stage.memory(), memory);
    assert_eq!(stage.origin().layers, 0..2);
    let tail = StageRunner::open(&slices.parts[1], &small()).unwrap_err();
    assert!(tail.to_string().contains("is a tail"), "{tail}");
    let whole = StageRunner::open(&slices.whole, &small()).unwrap_err();
    assert!(whole.to_string().contains("is no slice"), "{whole}");
    let wrong = StageRunner::open(&folder.path().join("none.gguf"), &small());
    assert!(matches!(wrong, Err(StageError::Load(_))));
}
