//! `mesh-llm models`: what could be served from this machine.

use node::{ByteSize, Details, LocalModel, store};
use serde_json::{Value, json};

use crate::cli::print;
use crate::failure::Failure;
use crate::settings::{LogFormat, Settings};
use crate::table;

/// Lists the models, as JSON if that is asked for here or of all output.
pub(crate) fn run(settings: &Settings, json: bool) -> Result<(), Failure> {
    let json = json || settings.log_format == LogFormat::Json;
    let mut models = starter(settings);
    models.extend(store::list(&settings.node));
    let text = if json {
        let list: Vec<Value> = models.iter().map(to_json).collect();
        format!("{}\n", Value::from(list))
    } else {
        list(&models, settings)
    };
    print(text.as_bytes())
}

#[cfg(feature = "solo")]
fn starter(settings: &Settings) -> Vec<LocalModel> {
    vec![store::describe_embedded(
        mesh_llm::STARTER_NAME,
        mesh_llm::STARTER,
        &settings.node,
    )]
}

#[cfg(not(feature = "solo"))]
fn starter(_: &Settings) -> Vec<LocalModel> {
    Vec::new()
}

fn to_json(model: &LocalModel) -> Value {
    match &model.details {
        Ok(details) => json!({
            "name": model.name,
            "path": model.path,
            "architecture": details.architecture,
            "parameters": details.parameters,
            "size_bytes": details.size_bytes,
            "files": details.files,
            "context_tokens": details.context_tokens,
            "quantization": details.quantization,
            "needed_bytes": details.needed_bytes,
            "fits": details.fits,
        }),
        Err(reason) => json!({ "name": model.name, "path": model.path, "error": reason }),
    }
}

const COLUMNS: [&str; 7] = [
    "NAME",
    "ARCHITECTURE",
    "PARAMETERS",
    "SIZE",
    "CONTEXT",
    "QUANTISATION",
    "FITS",
];

fn list(models: &[LocalModel], settings: &Settings) -> String {
    let mut rows = vec![COLUMNS.map(str::to_owned)];
    let mut broken = String::new();
    for model in models {
        match &model.details {
            Ok(details) => rows.push(row(&model.name, details)),
            Err(reason) => {
                let place = match &model.path {
                    Some(path) => path.display().to_string(),
                    None => model.name.clone(),
                };
                // The reader names the file as well.
                let reason = reason.strip_prefix(&format!("{place}: ")).unwrap_or(reason);
                let reason = reason.replace('\n', "; ");
                broken.push_str(&format!("can't be served: {place}: {reason}\n"));
            }
        }
    }
    let mut text = table::table(&rows);
    text.push_str(&broken);
    if models.iter().all(|model| model.path.is_none()) {
        let folders: Vec<String> = settings
            .node
            .models_dirs
            .iter()
            .map(|folder| folder.display().to_string())
            .collect();
        text.push_str(&format!("no GGUF files in {}\n", folders.join(" or ")));
    }
    text
}

fn row(name: &str, details: &Details) -> [String; 7] {
    let needs = ByteSize(details.needed_bytes);
    [
        name.to_owned(),
        details.architecture.clone(),
        count(details.parameters),
        ByteSize(details.size_bytes).to_string(),
        details.context_tokens.to_string(),
        details.quantization.clone(),
        if details.fits {
            "yes".to_owned()
        } else {
            format!("no, needs {needs}")
        },
    ]
}

/// A number of weights as people say it: 4.0 B, 135 M.
fn count(number: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
    let number = number as f64;
    if number >= 1e9 {
        format!("{:.1} B", number / 1e9)
    } else if number >= 1e7 {
        format!("{:.0} M", number / 1e6)
    } else {
        format!("{:.1} M", number / 1e6)
    }
}
