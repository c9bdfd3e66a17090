//! From what the user typed, set and wrote to one typed [`Settings`], once.
//!
//! The only place that reads environment variables. A flag wins over a variable, a variable over
//! the file, the file over the default.

mod layer;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use node::{Draft, ModelSource};
use thiserror::Error;

use crate::cli::Layer;

const PORT_DEFAULT: u16 = 9337;
/// Long enough for a usual answer on a slow machine, short enough for a person who waits.
const GRACE_DEFAULT: Duration = Duration::from_secs(30);
/// Longest grace time, s. A service manager gives up far earlier.
const GRACE_SECONDS_MAX: u64 = 24 * 3600;
/// Name of the model that is part of the program.
#[cfg(feature = "solo")]
const STARTER: &str = mesh_llm::STARTER_NAME;

/// Everything that can be set, resolved.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Folder of our own files.
    pub(crate) home: PathBuf,
    /// Models, and how they run.
    pub(crate) node: node::Settings,
    /// Whether the user named models; otherwise `node.models` holds the default.
    pub(crate) has_named_models: bool,
    pub(crate) port: u16,
    pub(crate) listen_all: bool,
    pub(crate) api_key: Option<String>,
    pub(crate) hosts: Vec<String>,
    pub(crate) cors_origins: Vec<String>,
    pub(crate) grace: Duration,
    pub(crate) log_format: LogFormat,
    pub(crate) log_level: Option<String>,
}

/// Who reads the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// A person.
    #[default]
    Pretty,
    /// A program.
    Json,
}

/// Why the settings can't be used.
#[derive(Debug, Error)]
pub(crate) enum SettingsError {
    #[error("unknown key `{key}` in {origin}; hint: {hint}")]
    UnknownKey {
        key: String,
        origin: String,
        hint: String,
    },
    #[error("{origin}: {reason}")]
    Invalid { origin: String, reason: String },
    #[error("can't read {}: {reason}", .path.display())]
    Unreadable { path: PathBuf, reason: String },
    #[error("no home folder is known; hint: set MESH_LLM_HOME")]
    NoHome,
}

/// The process's environment, or a made-up one in tests.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment {
    variables: BTreeMap<String, OsString>,
}

impl Environment {
    /// Reads the variables of this process, once.
    pub(crate) fn of_process() -> Self {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .collect();
        Self { variables }
    }

    /// A variable that is set to something.
    pub(crate) fn get(&self, name: &str) -> Option<&OsString> {
        self.variables.get(name).filter(|value| !value.is_empty())
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(PathBuf::from)
    }

    /// Variables whose name begins with `prefix`, without it.
    fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a OsString)> {
        self.variables
            .iter()
            .filter_map(move |(name, value)| Some((name.strip_prefix(prefix)?, value)))
            .filter(|(_, value)| !value.is_empty())
    }
}

/// Whether JSON was asked for, before the settings are read: errors in them must come in the
/// right form too. The file is not looked at.
pub(crate) fn early_log_format(arguments: &[OsString], environment: &Environment) -> LogFormat {
    let mut texts = arguments.iter().filter_map(|argument| argument.to_str());
    let mut asked = None;
    while let Some(text) = texts.next() {
        match text.strip_prefix("--log-format") {
            Some("") => asked = texts.next(),
            Some(value) if value.starts_with('=') => asked = value.get(1..),
            _ => {}
        }
    }
    let variable = environment
        .get("MESH_LLM_LOG_FORMAT")
        .and_then(|value| value.to_str());
    if asked.or(variable) == Some("json") {
        LogFormat::Json
    } else {
        LogFormat::Pretty
    }
}

/// Puts flags, variables, file and defaults together.
pub(crate) fn resolve(
    flags: Layer,
    config: Option<&Path>,
    environment: &Environment,
) -> Result<Settings, SettingsError> {
    let user_home = environment.path("HOME");
    let home = environment
        .path("MESH_LLM_HOME")
        .or_else(|| Some(user_home.as_ref()?.join(".mesh-llm")))
        .ok_or(SettingsError::NoHome)?;
    let variables = layer::of_environment(environment)?;
    let named_file = config
        .map(Path::to_path_buf)
        .or_else(|| environment.path("MESH_LLM_CONFIG"));
    let file = match named_file {
        Some(path) => layer::of_file(&path, true)?,
        None => layer::of_file(&home.join("config.toml"), false)?,
    };
    let layer = flags.over(variables).over(file);
    let places = Places {
        models_dirs: default_models_dirs(user_home.as_deref(), environment),
        user_home,
        home,
    };
    Ok(settings(layer, places))
}

struct Places {
    home: PathBuf,
    user_home: Option<PathBuf>,
    models_dirs: Vec<PathBuf>,
}

fn settings(layer: Layer, places: Places) -> Settings {
    let user_home = places.user_home.as_deref();
    let Layer {
        models,
        server,
        talk,
    } = layer;
    let mut models_dirs: Vec<PathBuf> = models
        .models_dir
        .unwrap_or_default()
        .into_iter()
        .map(|folder| expand_home(folder, user_home))
        .collect();
    models_dirs.extend(places.models_dirs);
    let named = models.model.unwrap_or_default();
    let draft = match (models.draft, models.no_draft) {
        (_, Some(true)) => Draft::None,
        (Some(draft), _) => Draft::Model(source(&draft, user_home)),
        (None, _) => Draft::Auto,
    };
    let grace_seconds = server
        .grace_seconds
        .map(|seconds| seconds.min(GRACE_SECONDS_MAX));
    Settings {
        has_named_models: !named.is_empty(),
        node: node::Settings {
            models: model_sources(&named, user_home),
            context_tokens: models.ctx_size,
            slots: models.parallel,
            gpu_layers: models.gpu_layers,
            device: models.device,
            draft,
            threads: models.threads,
            queue_max: server.queue,
            models_dirs,
            memory_bytes_max: None,
            mesh: node::MeshSettings::default(),
        },
        home: places.home,
        port: server.port.unwrap_or(PORT_DEFAULT),
        listen_all: server.listen_all.unwrap_or(false),
        api_key: server.api_key.filter(|key| !key.is_empty()),
        hosts: server.host.unwrap_or_default(),
        cors_origins: server.cors_origin.unwrap_or_default(),
        grace: grace_seconds.map_or(GRACE_DEFAULT, Duration::from_secs),
        log_format: talk.log_format.unwrap_or_default(),
        log_level: talk.log_level,
    }
}

#[cfg(feature = "solo")]
fn model_sources(named: &[String], user_home: Option<&Path>) -> Vec<ModelSource> {
    let starter = || ModelSource::Embedded {
        name: STARTER.to_owned(),
        bytes: mesh_llm::STARTER,
    };
    if named.is_empty() {
        return vec![starter()];
    }
    let is_starter = |name: &str| name.eq_ignore_ascii_case(STARTER);
    named
        .iter()
        .map(|name| {
            if is_starter(name) {
                starter()
            } else {
                source(name, user_home)
            }
        })
        .collect()
}

#[cfg(not(feature = "solo"))]
fn model_sources(named: &[String], user_home: Option<&Path>) -> Vec<ModelSource> {
    named.iter().map(|name| source(name, user_home)).collect()
}

fn source(text: &str, user_home: Option<&Path>) -> ModelSource {
    match ModelSource::parse(text) {
        ModelSource::Path(path) => ModelSource::Path(expand_home(path, user_home)),
        other => other,
    }
}

/// A shell expands `~`, a file and a variable do not.
fn expand_home(path: PathBuf, user_home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~"), user_home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path,
    }
}

fn default_models_dirs(user_home: Option<&Path>, environment: &Environment) -> Vec<PathBuf> {
    let own = user_home.map(|home| home.join(".models"));
    let cache = environment
        .path("HF_HUB_CACHE")
        .or_else(|| Some(environment.path("HF_HOME")?.join("hub")))
        .or_else(|| Some(environment.path("XDG_CACHE_HOME")?.join("huggingface/hub")))
        .or_else(|| Some(user_home?.join(".cache/huggingface/hub")));
    own.into_iter().chain(cache).collect()
}

#[cfg(test)]
mod tests;
