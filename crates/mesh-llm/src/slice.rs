//! `mesh-llm models slice`: some layers of a model as a file of their own.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use gguf::{LayerMap, Model, SlicePlan, SliceRole};
use node::ByteSize;
use serde_json::json;

use crate::cli::{SliceArguments, print};
use crate::console::Console;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::settings::Settings;

/// Room that is left on the disk at least, bytes: a full disk harms more than us.
const DISK_RESERVE_BYTES: u64 = 64 << 20;

/// Writes the slice.
pub(crate) fn run(settings: &Settings, arguments: &SliceArguments) -> Result<(), Failure> {
    let path = &arguments.file;
    let failed = |error: &dyn std::fmt::Display| {
        Failure::model(format!("can't cut {}: {error}", path.display()))
    };
    let model = Model::open(path).map_err(|error| failed(&error))?;
    let map = LayerMap::of(&model).map_err(|error| failed(&error))?;
    let layers = arguments.layers.clone();
    let role = if layers.end == map.layers() {
        SliceRole::Tail
    } else {
        SliceRole::Stage
    };
    let plan = map
        .plan(layers.clone(), role)
        .map_err(|error| failed(&error))?;
    let out = match &arguments.output {
        Some(out) => out.clone(),
        None => beside(path, &layers),
    };
    write(&model, &plan, &out, Console::new(settings.log_format))?;
    let (bytes, place) = (plan.file_bytes(), out.display());
    let text = if arguments.json {
        let told = json!({
            "path": out,
            "role": role.to_string(),
            "layers": [layers.start, layers.end],
            "bytes": bytes,
        });
        format!("{told}\n")
    } else {
        format!(
            "{place}: layers {} to {} of {}, {role}, {}\n",
            layers.start,
            layers.end - 1,
            map.layers(),
            ByteSize(bytes)
        )
    };
    print(text.as_bytes())
}

/// `model.gguf` becomes `model-layers-4-8.gguf`, in the folder where the program was started.
fn beside(path: &Path, layers: &Range<u32>) -> PathBuf {
    let name = node::name_of(path);
    PathBuf::from(format!(
        "{name}-layers-{}-{}.gguf",
        layers.start, layers.end
    ))
}

/// Writes next to the target and renames: what was there stays until the slice is whole.
fn write(model: &Model, plan: &SlicePlan, out: &Path, console: Console) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::other(format!("can't write {}: {error}", out.display()))
    };
    if model.parts().iter().any(|part| same_file(&part.name, out)) {
        return Err(failed(
            &"it is the model itself; hint: name another file with --output",
        ));
    }
    let folder = match out.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let needed = plan.file_bytes().saturating_add(DISK_RESERVE_BYTES);
    if let Some(free) = node::disk_free_bytes(folder)
        && free < needed
    {
        let (needed, free) = (ByteSize(plan.file_bytes()), ByteSize(free));
        return Err(failed(&format!(
            "it takes {needed}, and the disk has {free} left; hint: --output on another disk"
        )));
    }
    let sources = model.open_sources().map_err(|error| failed(&error))?;
    let draft = tempfile_beside(out);
    let file = File::create(&draft).map_err(|error| failed(&error))?;
    let total = plan.copied_bytes().max(1);
    let mut progress = Progress::new(console);
    let name = out
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    let name = name.unwrap_or_default();
    let written = plan
        .write(&sources, BufWriter::new(file), |bytes| {
            #[expect(clippy::cast_precision_loss, reason = "a share, shown in percent")]
            progress.show(&name, bytes as f32 / total as f32);
            true
        })
        .map_err(|error| failed(&error))
        .and_then(|mut file| file.flush().map_err(|error| failed(&error)))
        .and_then(|()| std::fs::rename(&draft, out).map_err(|error| failed(&error)));
    progress.clear();
    if written.is_err() {
        // What is left of it is useless; the error is told either way.
        let _ = std::fs::remove_file(&draft);
    }
    written
}

fn tempfile_beside(out: &Path) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    out.with_file_name(name)
}

fn same_file(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}
