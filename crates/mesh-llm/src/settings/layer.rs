//! One layer of settings from variables or from a file, read with the rules of the flags.
//!
//! A key is the flag's long name with `_` for `-`; in a file it may stand in a table, which is
//! named like the heading of its flags. So the flags are the only schema.

use std::ffi::OsString;
use std::path::Path;

use clap::{Args, FromArgMatches};

use super::{Environment, SettingsError};
use crate::cli::{Layer, with_values};

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
            "model" | "host" | "cors_origin" | "relay" | "relays" => split_commas(value),
            _ => vec![value.clone()],
        };
        entries.push(Entry {
            table: None,
            key,
            values: Some(values),
        });
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
    for (name, value) in table {
        match value {
            toml::Value::Table(keys) => {
                for (key, value) in keys {
                    entries.push(entry(Some(&name), &key, value));
                }
            }
            value => entries.push(entry(None, &name, value)),
        }
    }
    parse(entries, &origin, str::to_owned)
}

/// One setting, as somebody wrote it.
struct Entry {
    /// The table around it.
    table: Option<String>,
    key: String,
    /// `None` for what no setting can be.
    values: Option<Vec<OsString>>,
}

fn entry(table: Option<&str>, key: &str, value: toml::Value) -> Entry {
    let values = match value {
        toml::Value::Array(values) => values,
        value => vec![value],
    };
    let values: Option<Vec<OsString>> = values.iter().map(scalar).collect();
    let plain = |name: &str| name.replace('-', "_");
    Entry {
        table: table.map(plain),
        key: plain(key),
        values,
    }
}

fn scalar(value: &toml::Value) -> Option<OsString> {
    match value {
        toml::Value::String(text) => Some(text.into()),
        toml::Value::Integer(number) => Some(number.to_string().into()),
        toml::Value::Float(number) => Some(number.to_string().into()),
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
    let known = Known::of(&command);
    let mut arguments = Vec::new();
    for entry in entries {
        known.check(&entry, origin, &spell)?;
        for value in entry.values.unwrap_or_default() {
            let mut argument = OsString::from(format!("--{}=", entry.key.replace('_', "-")));
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

/// The keys that there are.
struct Known {
    keys: Vec<KnownKey>,
}

struct KnownKey {
    key: String,
    /// Other spellings.
    aliases: Vec<String>,
    table: String,
}

impl Known {
    fn of(command: &clap::Command) -> Self {
        let plain = |long: &str| long.replace('-', "_");
        let keys = command.get_arguments().filter_map(|argument| {
            let aliases = argument.get_all_aliases().unwrap_or_default();
            Some(KnownKey {
                key: plain(argument.get_long()?),
                aliases: aliases.into_iter().map(plain).collect(),
                table: argument.get_help_heading()?.to_lowercase(),
            })
        });
        Self {
            keys: keys.collect(),
        }
    }

    fn find(&self, key: &str) -> Option<&KnownKey> {
        let is_it = |known: &&KnownKey| known.key == key || known.aliases.iter().any(|a| a == key);
        self.keys.iter().find(is_it)
    }

    fn check(
        &self,
        entry: &Entry,
        origin: &str,
        spell: &impl Fn(&str) -> String,
    ) -> Result<(), SettingsError> {
        let unknown = |key: String, hint: String| SettingsError::UnknownKey {
            key,
            origin: origin.to_owned(),
            hint,
        };
        let wrong = |key: &str| SettingsError::Invalid {
            origin: origin.to_owned(),
            reason: format!("`{key}` must be a text, a number, true, false, or a list of texts"),
        };
        if let Some(table) = &entry.table
            && !self.keys.iter().any(|known| known.table == *table)
        {
            return Err(match self.find(table) {
                Some(_) => wrong(table),
                None => unknown(format!("[{table}]"), self.tables()),
            });
        }
        let Some(known) = self.find(&entry.key) else {
            let table = entry.table.as_deref();
            return Err(unknown(
                spell(&entry.key),
                self.hint(&entry.key, table, spell),
            ));
        };
        if let Some(table) = &entry.table
            && known.table != *table
        {
            let hint = format!("it belongs into the table [{}]", known.table);
            return Err(unknown(format!("{table}.{}", entry.key), hint));
        }
        match entry.values {
            Some(_) => Ok(()),
            None => Err(wrong(&entry.key)),
        }
    }

    fn tables(&self) -> String {
        let mut tables: Vec<String> = Vec::new();
        for known in &self.keys {
            let table = format!("[{}]", known.table);
            if !tables.contains(&table) {
                tables.push(table);
            }
        }
        format!("the tables are {}", tables.join(", "))
    }

    /// What may be meant by `key`, which is written in `table`.
    fn hint(&self, key: &str, table: Option<&str>, spell: &impl Fn(&str) -> String) -> String {
        let here = || {
            let keys = self.keys.iter();
            keys.filter(|known| table.is_none_or(|table| known.table == table))
        };
        let close = here()
            .map(|known| (strsim::jaro_winkler(&known.key, key), &known.key))
            .filter(|(score, _)| *score > 0.75)
            .max_by(|left, right| left.0.total_cmp(&right.0));
        match close {
            Some((_, name)) => format!("did you mean `{}`?", spell(name)),
            None => {
                let names: Vec<String> = here().map(|known| spell(&known.key)).collect();
                format!("known are {}", names.join(", "))
            }
        }
    }
}
