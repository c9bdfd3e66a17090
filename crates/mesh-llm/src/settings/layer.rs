//! One layer of settings from variables or from a file, read with the rules of the flags.
//!
//! A key is the flag's long name with `_` for `-`; so the flags are the only schema.

use std::ffi::OsString;
use std::path::Path;

use clap::{Args, FromArgMatches};

use super::{Environment, SettingsError};
use crate::cli::{Layer, ModelFlags, ServerFlags, TalkFlags, with_values};

const PREFIX: &str = "MESH_LLM_";
/// Variables of ours that are no settings: they say where the settings are.
const OTHER_VARIABLES: [&str; 2] = ["HOME", "CONFIG"];
/// Variables that tests pass to each other.
const TEST_PREFIX: &str = "TEST_";
/// Largest file of settings that is read, bytes; an honest one has a few hundred.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The layer of the `MESH_LLM_*` variables.
pub(super) fn of_environment(environment: &Environment) -> Result<Layer, SettingsError> {
    let mut entries = Vec::new();
    for (name, value) in environment.with_prefix(PREFIX) {
        if OTHER_VARIABLES.contains(&name) || name.starts_with(TEST_PREFIX) {
            continue;
        }
        let key = match name {
            // The name that readers of RUST_LOG expect.
            "LOG" => "log_level".to_owned(),
            name => name.to_lowercase(),
        };
        let values = match key.as_str() {
            "models_dir" => std::env::split_paths(value).map(OsString::from).collect(),
            "model" | "host" | "cors_origin" => split_commas(value),
            _ => vec![value.clone()],
        };
        entries.push(Entry { key, values });
    }
    parse(entries, "the environment", |key| {
        format!("{PREFIX}{}", key.to_uppercase())
    })
}

/// The layer of a file; empty if there is none and none was asked for.
pub(super) fn of_file(path: &Path, is_required: bool) -> Result<Layer, SettingsError> {
    let unreadable = |reason: String| SettingsError::Unreadable {
        path: path.to_path_buf(),
        reason,
    };
    let metadata = match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !is_required => {
            return Ok(Layer::default());
        }
        Err(error) => return Err(unreadable(error.to_string())),
        Ok(metadata) => metadata,
    };
    if metadata.len() > FILE_BYTES_MAX {
        return Err(unreadable(format!(
            "it is larger than {FILE_BYTES_MAX} bytes"
        )));
    }
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    let origin = path.display().to_string();
    let invalid = |reason: String| SettingsError::Invalid {
        origin: origin.clone(),
        reason,
    };
    let table: toml::Table = text
        .parse()
        .map_err(|error: toml::de::Error| invalid(error.to_string().trim_end().to_owned()))?;
    let mut entries = Vec::new();
    for (key, value) in table {
        let values = match value {
            toml::Value::Array(values) => values,
            value => vec![value],
        };
        let values: Option<Vec<OsString>> = values.iter().map(scalar).collect();
        let values = values.ok_or_else(|| {
            invalid(format!(
                "`{key}` must be a text, a number, true, false, or a list of texts"
            ))
        })?;
        let key = key.replace('-', "_");
        entries.push(Entry { key, values });
    }
    parse(entries, &origin, str::to_owned)
}

struct Entry {
    key: String,
    values: Vec<OsString>,
}

fn scalar(value: &toml::Value) -> Option<OsString> {
    match value {
        toml::Value::String(text) => Some(text.into()),
        toml::Value::Integer(number) => Some(number.to_string().into()),
        toml::Value::Boolean(flag) => Some(flag.to_string().into()),
        _ => None,
    }
}

fn split_commas(value: &OsString) -> Vec<OsString> {
    match value.to_str() {
        Some(text) => text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(OsString::from)
            .collect(),
        None => vec![value.clone()],
    }
}

/// Reads entries as if they were flags. `spell` shows a key as the user wrote it.
fn parse(
    entries: Vec<Entry>,
    origin: &str,
    spell: impl Fn(&str) -> String,
) -> Result<Layer, SettingsError> {
    let command = clap::Command::new("settings")
        .no_binary_name(true)
        .disable_help_flag(true);
    let mut command = with_values(Layer::augment_args(command));
    // Arguments can only be spelled once the command is built.
    command.build();
    // As clap spells the flags, and as the user spelled the keys.
    let spellings: Vec<(String, String)> = command
        .get_arguments()
        .filter_map(|argument| {
            let key = argument.get_long()?.replace('-', "_");
            Some((format!("'{argument}'"), format!("`{}`", spell(&key))))
        })
        .collect();
    let known: Vec<String> = command
        .get_arguments()
        .filter_map(clap::Arg::get_long)
        .map(|long| long.replace('-', "_"))
        .collect();
    let mut arguments = Vec::new();
    for Entry { key, values } in entries {
        if !known.contains(&key) {
            return Err(SettingsError::UnknownKey {
                hint: hint(&key, &known, &spell),
                key: spell(&key),
                origin: origin.to_owned(),
            });
        }
        for value in values {
            let mut argument = OsString::from(format!("--{}=", key.replace('_', "-")));
            argument.push(value);
            arguments.push(argument);
        }
    }
    let matches = command.try_get_matches_from(arguments);
    let layer = matches.and_then(|matches| Layer::from_arg_matches(&matches));
    layer.map_err(|error| {
        let text = error.to_string();
        let reason = text.lines().next().unwrap_or_default().to_owned();
        let reason =
            (spellings.iter()).fold(reason, |reason, (flag, key)| reason.replace(flag, key));
        SettingsError::Invalid {
            origin: origin.to_owned(),
            reason: reason.trim_start_matches("error: ").to_owned(),
        }
    })
}

fn hint(key: &str, known: &[String], spell: &impl Fn(&str) -> String) -> String {
    let close = known
        .iter()
        .map(|name| (strsim::jaro_winkler(name, key), name))
        .filter(|(score, _)| *score > 0.75)
        .max_by(|left, right| left.0.total_cmp(&right.0));
    match close {
        Some((_, name)) => format!("did you mean `{}`?", spell(name)),
        None => {
            let names: Vec<String> = known.iter().map(|name| spell(name)).collect();
            format!("known are {}", names.join(", "))
        }
    }
}

impl Layer {
    /// This layer, with what it leaves open taken from `lower`.
    pub(crate) fn over(self, lower: Self) -> Self {
        Self {
            models: self.models.over(lower.models),
            server: self.server.over(lower.server),
            talk: self.talk.over(lower.talk),
        }
    }
}

impl ModelFlags {
    fn over(self, lower: Self) -> Self {
        // Both flags set one thing: a layer that says either has spoken.
        let (draft, no_draft) = match (self.draft, self.no_draft) {
            (None, None) => (lower.draft, lower.no_draft),
            own => own,
        };
        Self {
            model: self.model.or(lower.model),
            models_dir: self.models_dir.or(lower.models_dir),
            ctx_size: self.ctx_size.or(lower.ctx_size),
            parallel: self.parallel.or(lower.parallel),
            gpu_layers: self.gpu_layers.or(lower.gpu_layers),
            device: self.device.or(lower.device),
            draft,
            no_draft,
            threads: self.threads.or(lower.threads),
        }
    }
}

impl ServerFlags {
    fn over(self, lower: Self) -> Self {
        Self {
            port: self.port.or(lower.port),
            listen_all: self.listen_all.or(lower.listen_all),
            api_key: self.api_key.or(lower.api_key),
            host: self.host.or(lower.host),
            cors_origin: self.cors_origin.or(lower.cors_origin),
            queue: self.queue.or(lower.queue),
            grace_seconds: self.grace_seconds.or(lower.grace_seconds),
        }
    }
}

impl TalkFlags {
    fn over(self, lower: Self) -> Self {
        Self {
            log_format: self.log_format.or(lower.log_format),
            log_level: self.log_level.or(lower.log_level),
        }
    }
}
