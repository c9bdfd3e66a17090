//! Model files cut into parts.

use std::fs::File;
use std::path::{Path, PathBuf};

use gguf::{LayerMap, Model, SliceRole};

/// A whole model and its parts: the last one is the tail.
pub(crate) struct Slices {
    pub(crate) whole: PathBuf,
    pub(crate) parts: Vec<PathBuf>,
    pub(crate) cuts: Vec<u32>,
}

/// Cuts the model at `whole` into so many parts, as even as it can be cut.
pub(crate) fn cut(whole: &Path, parts: usize, folder: &Path) -> Slices {
    let model = Model::open(whole).unwrap();
    let map = LayerMap::of(&model).unwrap();
    let groups = map.cuts().len() + 1;
    let cuts: Vec<u32> = (1..parts)
        .map(|i| map.cuts()[i * groups / parts - 1])
        .collect();
    let starts = [&[0], cuts.as_slice()].concat();
    let ends = [cuts.as_slice(), &[map.layers()]].concat();
    let sources = model.open_sources().unwrap();
    let paths = starts.iter().zip(&ends).map(|(&start, &end)| {
        let role = match end == map.layers() {
            true => SliceRole::Tail,
            false => SliceRole::Stage,
        };
        let path = folder.join(format!("{parts}-{start}-{end}.gguf"));
        let plan = map.plan(start..end, role).unwrap();
        plan.write(&sources, File::create(&path).unwrap(), |_| true)
            .unwrap();
        path
    });
    Slices {
        whole: whole.to_path_buf(),
        parts: paths.collect(),
        cuts,
    }
}
