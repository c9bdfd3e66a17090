//! A short run on a layer or some of a model: how fast this machine will compute it, before it has.

use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use engine::stage::{StageBatch, StageOptions, StageRunner};
use gguf::{KeyError, LayerMap, Model, SliceRole, TensorInfo};
use split::plan::{ModelShape, PREFILL_CHUNK_ROWS, Speed, WindowCache};

use super::bandwidth::Field;
use super::slices::{Keeping, slice};
use crate::Settings;

/// Largest piece of a model that is cut out or made up for that: one layer of the largest models has some gigabytes.
const PIECE_BYTES_MAX: u64 = 4 << 30;

/// So much a token is to read in the trial: beside a single small layer what each call costs would count as if
/// every layer took it. (One layer of 16 MB looked 26 % slower than it was in a stage of thirteen.)
const READ_BYTES_MIN: u64 = 64 << 20;

/// Memory beside the layers: its buffers, and what is read to empty the caches.
const MEMORY_BYTES: u64 = 640 << 20;

/// Decoded tokens; the fastest quarter of them counts: what else runs makes the others slower, and none faster.
const TOKENS: usize = 9;

/// Chunks of a prompt; the fastest counts.
const CHUNKS: usize = 2;

/// No more runs after so long: whoever asked has had enough to go by.
const TIME_MAX: Duration = Duration::from_secs(4);

/// Room for the rows of the run.
const CONTEXT_TOKENS: u32 = 512;

/// Rows of the widest matrix's output that are held for each of them at a time, or keys and values as large, about.
const ROWS_HELD: u64 = 4;

/// Some layers of a model that are run to tell how fast all are.
#[derive(Debug)]
pub(super) struct Trial {
    pub(super) layers: Range<u32>,
    /// What a token reads of them, bytes.
    active_bytes: u64,
}

impl Trial {
    /// Chooses layers of a model, of which the headers are enough. The run may use `memory_bytes` at most.
    pub(super) fn of(model: &Model, memory_bytes: u64) -> Result<Self, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let map = LayerMap::of(model).map_err(|error| text(&error))?;
        let shape = ModelShape::from_model(model, map.cuts().first().copied(), WindowCache::Full);
        let shape = shape.map_err(|error| text(&error))?;
        // One in the middle: the first layers of some models are of another kind.
        let points: Vec<u32> = [0].iter().chain(map.cuts()).copied().collect();
        let middle = (points.len() - 1) / 2;
        let bytes_max = PIECE_BYTES_MAX.min(memory_bytes.saturating_sub(MEMORY_BYTES));
        // A layer of a mixture of experts has many times the bytes that a token reads of it.
        let fits = |layers: Range<u32>| {
            let piece = map.plan(layers, SliceRole::Stage);
            piece.is_ok_and(|piece| piece.copied_bytes() <= bytes_max)
        };
        let active_bytes = |layers: Range<u32>| shape.active_bytes(layers);
        let layers = enough(&points[middle..], map.layers(), active_bytes, fits);
        let piece = map
            .plan(layers.clone(), SliceRole::Stage)
            .map_err(|error| text(&error))?;
        let weight_bytes = piece.copied_bytes();
        // Where it can't be told, a row may see all of them.
        let experts_used = match model.metadata().arch_u32("expert_used_count") {
            Ok(used) => used.into(),
            Err(KeyError::Missing { .. }) => 1,
            Err(_) => u64::MAX,
        };
        let needed = [
            weight_bytes,
            MEMORY_BYTES,
            row_bytes(piece.tensors(), experts_used),
        ];
        let needed = needed.into_iter().fold(0, u64::saturating_add);
        if weight_bytes > PIECE_BYTES_MAX || needed > memory_bytes {
            return Err("layers take too much memory for a trial".to_owned());
        }
        Ok(Self {
            active_bytes: shape.active_bytes(layers.clone()),
            layers,
        })
    }

    /// Runs them, from the file of a slice of just these layers. Blocks for some seconds at most.
    pub(super) fn run(&self, slice: &Path, settings: &Settings) -> Result<Speed, String> {
        let threads = settings.threads.unwrap_or_else(engine::threads_default);
        let options = StageOptions {
            kv_tokens: CONTEXT_TOKENS,
            sequences: 1,
            rows_max: PREFILL_CHUNK_ROWS,
            outputs_max: 0,
            threads: Some(threads),
            gpu_layers: settings.gpu_layers,
            device: settings.device.clone(),
        };
        let runner = StageRunner::open(slice, &options).map_err(|error| error.to_string())?;
        let (token_s, row_s) = times(runner, threads)?;
        let speed = Speed::from_times(self.active_bytes, token_s, row_s);
        speed.map_err(|error| error.to_string())
    }
}

/// Bytes of all rows between two matrices, about. What a matrix makes of a row may be many times larger than the weights
/// that it takes, in headers that were made up to that end.
/// `experts_used`: so many of them a row sees.
fn row_bytes(tensors: &[TensorInfo], experts_used: u64) -> u64 {
    let widths = tensors.iter().filter_map(|tensor| {
        let experts = tensor.dims.get(2).copied().unwrap_or(1);
        Some(
            tensor
                .dims
                .get(1)?
                .saturating_mul(experts.min(experts_used.max(1))),
        )
    });
    let widest = widths.max().unwrap_or(1);
    let values = widest.saturating_mul(ROWS_HELD * u64::from(CONTEXT_TOKENS));
    values.saturating_mul(size_of::<f32>() as u64)
}

/// Runs some of the layers of the model at `path`, of which `memory_bytes` at most may be used. Blocks for some seconds
/// at most, the copying of a layer aside.
pub(super) fn probe(
    path: &Path,
    settings: &Settings,
    folder: &Path,
    memory_bytes: u64,
) -> Result<Speed, String> {
    let model = Model::open(path).map_err(|error| error.to_string())?;
    let trial = Trial::of(&model, memory_bytes)?;
    let file = slice(
        &model,
        trial.layers.clone(),
        SliceRole::Stage,
        folder,
        Keeping::ForNow,
        &mut |_| true,
    )?;
    let speed = trial.run(&file, settings);
    // They were cut out for this only.
    let _ = std::fs::remove_file(&file);
    speed
}

/// As few of the layers between `points`, from the first one on, as read enough for a token; fewer where no more fit.
/// What stands before the second point is taken in any case.
fn enough(
    points: &[u32],
    layer_count: u32,
    active_bytes: impl Fn(Range<u32>) -> u64,
    fits: impl Fn(Range<u32>) -> bool,
) -> Range<u32> {
    let start = points.first().copied().unwrap_or(0);
    let mut chosen = None;
    for end in points.iter().skip(1).copied().chain([layer_count]) {
        if chosen.is_some() && !fits(start..end) {
            break;
        }
        chosen = Some(end);
        if active_bytes(start..end) >= READ_BYTES_MIN {
            break;
        }
    }
    start..chosen.unwrap_or(layer_count)
}

/// Seconds of a decoded token, and of a row of a prompt.
fn times(mut runner: StageRunner, threads: u32) -> Result<(f64, f64), String> {
    let began = Instant::now();
    let width = runner.width();
    let row =
        |number: usize| (0..width).map(move |i| ((i * 7 + number * 13) % 17) as f32 / 17.0 - 0.5);
    let mut time = |from: i32, rows: i32| -> Result<f64, String> {
        let hidden: Vec<f32> = (0..rows as usize).flat_map(row).collect();
        let positions: Vec<i32> = (from..from + rows).collect();
        let batch = StageBatch {
            hidden: &hidden,
            positions: &positions,
            sequences: &vec![0; rows as usize],
        };
        let began = Instant::now();
        runner.run(&batch).map_err(|error| error.to_string())?;
        Ok(began.elapsed().as_secs_f64())
    };
    let rows = PREFILL_CHUNK_ROWS as i32;
    let mut next = 0;
    let mut row_s = f64::INFINITY;
    for _ in 0..CHUNKS {
        row_s = row_s.min(time(next, rows)? / f64::from(rows));
        next += rows;
        if began.elapsed() > TIME_MAX {
            break;
        }
    }
    // A whole model does not fit into the caches, so its layers are not there when their turn comes.
    let field = Field::new();
    let mut tokens = Vec::new();
    for _ in 0..TOKENS {
        field.read(threads);
        tokens.push(time(next, 1)?);
        next += 1;
        if began.elapsed() > TIME_MAX {
            break;
        }
    }
    tokens.sort_by(f64::total_cmp);
    let token_s = tokens.get(tokens.len() / 4).copied();
    Ok((token_s.unwrap_or(row_s), row_s))
}

#[cfg(test)]
mod tests {
    use gguf::GgmlType;

    use super::*;

    #[test]
    fn a_trial_reads_enough_to_tell() {
        let check = |points: &[u32], layer_bytes: u64, wanted: Range<u32>| {
            let bytes = |layers: Range<u32>| u64::from(layers.end - layers.start) * layer_bytes;
            assert_eq!(
                enough(points, 24, bytes, |_| true),
                wanted,
                "{points:?} {layer_bytes}"
            );
        };
        check(&[12, 13, 14, 20], 16 << 20, 12..20);
        check(&[12, 13, 14, 16, 20], 16 << 20, 12..16);
        check(&[12, 13], 1 << 30, 12..13);
        // The last layers do where there are no more.
        check(&[12, 13], 1 << 20, 12..24);
        check(&[0], 1 << 20, 0..24);
    }

    #[test]
    fn a_trial_has_no_more_layers_than_fit_and_one_at_least() {
        // A mixture of experts: a token reads 8 MiB of the 100 MiB of a layer.
        let check = |bytes_max: u64, wanted: Range<u32>| {
            let count = |layers: Range<u32>| u64::from(layers.end - layers.start);
            let points: Vec<u32> = (12..24).collect();
            let layers = enough(
                &points,
                24,
                |layers| count(layers) * (8 << 20),
                |layers| count(layers) * (100 << 20) <= bytes_max,
            );
            assert_eq!(layers, wanted, "{bytes_max}");
        };
        check(4 << 30, 12..20);
        check(256 << 20, 12..14);
        check(200 << 20, 12..14);
        check(199 << 20, 12..13);
        check(0, 12..13);
    }

    #[test]
    fn rows_take_memory_by_the_widest_matrix() {
        let tensor = |dims: &[u64]| TensorInfo {
            name: "blk.0.ffn_up.weight".into(),
            dims: dims.to_vec(),
            ggml_type: GgmlType::Q8_0,
            offset: 0,
        };
        let check = |widths: &[&[u64]], wanted: u64| {
            let tensors: Vec<_> = widths.iter().map(|dims| tensor(dims)).collect();
            assert_eq!(row_bytes(&tensors, 8), wanted, "{widths:?}");
        };
        check(&[&[4_096], &[4_096, 14_336], &[14_336, 4_096]], 112 << 20);
        // Of many experts a row sees some.
        check(&[&[4_096, 1_024, 256]], 64 << 20);
        check(&[&[4_096, 1_024, 4]], 32 << 20);
        check(&[&[32, u64::MAX]], u64::MAX);
        check(&[], 8 << 10);
    }

    #[test]
    fn one_layer_tells_the_speed_and_leaves_nothing_behind() {
        let starter = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/starter.gguf");
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            threads: Some(1),
            ..Settings::default()
        };
        let run = |bytes| probe(Path::new(starter), &settings, folder.path(), bytes);
        let (decode, prefill) = run(u64::MAX).unwrap().bytes_per_s();
        assert!(decode > 1e5 && prefill > 1e5, "{decode} {prefill}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(run(1 << 20).unwrap_err().contains("too much memory"));
        let none = probe(folder.path(), &settings, folder.path(), u64::MAX);
        assert!(none.is_err());
    }
}
