//! From what the user typed, set and wrote to one typed [`Settings`], once.
//!
//! The only place that reads environment variables. A flag wins over a variable, a variable over
//! the file, the file over the default.

mod layer;
mod mesh;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::mesh::ticket::TicketError;
use node::{Draft, Hub, ModelSource};
use thiserror::Error;

pub(crate) use self::mesh::{Way, read_ticket};
use crate::cli::{Layer, ServerFlags};

/// The public hub, where most models come from.
const HUB_DEFAULT: &str = "https://huggingface.co";
/// No hub.
const HUB_NONE: &str = "none";
const PORT_DEFAULT: u16 = 9337;
const CONSOLE_DEFAULT: u16 = 3131;
/// Long enough for a usual answer on a slow machine, short enough for a person who waits.
const GRACE_DEFAULT: Duration = Duration::from_secs(30);
/// Longest grace time, s. A service manager gives up far earlier.
const GRACE_SECONDS_MAX: u64 = 24 * 3600;

/// Everything that can be set, resolved.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Folder of our own files.
    pub(crate) home: PathBuf,
    /// Models, how they run, and how the node takes part in a mesh.
    pub(crate) node: node::Settings,
    /// What the node does about a mesh when it starts.
    pub(crate) way: Way,
    pub(crate) port: u16,
    pub(crate) console: ConsolePort,
    pub(crate) listen_all: bool,
    pub(crate) api_key: Option<String>,
    pub(crate) hosts: Vec<String>,
    pub(crate) cors_origins: Vec<String>,
    pub(crate) grace: Duration,
    pub(crate) log_format: LogFormat,
    pub(crate) log_level: Option<String>,
}

/// Where the management API is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConsolePort {
    /// Nowhere.
    Off,
    /// At the port that was asked for.
    Asked(u16),
    /// At the usual one, or at another if that is taken.
    Usual,
}

impl ConsolePort {
    /// The port to begin with.
    pub(crate) fn first_choice(self) -> Option<u16> {
        match self {
            Self::Off => None,
            Self::Asked(port) => Some(port),
            Self::Usual => Some(CONSOLE_DEFAULT),
        }
    }
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

/// How hidden states travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum SplitPrecision {
    /// As 32-bit floats.
    #[default]
    F32,
    /// As 16-bit floats.
    F16,
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
    #[error(transparent)]
    Ticket(#[from] TicketError),
    #[error("a client runs no model; hint: leave out --client or --model")]
    ClientWithModel,
}

/// The process's environment, or a made-up one in tests.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment {
    variables: BTreeMap<String, OsString>,
    host_name: Option<String>,
}

impl Environment {
    /// Reads the variables of this process, once.
    pub(crate) fn of_process() -> Self {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .collect();
        Self {
            variables,
            host_name: sysinfo::System::host_name().ok(),
        }
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
        cache_dir: cache_dir(user_home.as_deref(), environment),
        user_home,
        home,
        host_name: environment.host_name.clone(),
        hub_token: environment
            .get("HF_TOKEN")
            .and_then(|token| token.to_str().map(str::to_owned)),
    };
    settings(layer, places)
}

/// What the machine says of itself.
struct Places {
    home: PathBuf,
    user_home: Option<PathBuf>,
    models_dirs: Vec<PathBuf>,
    cache_dir: Option<PathBuf>,
    host_name: Option<String>,
    /// The user's token for the hub.
    hub_token: Option<String>,
}

/// The hub that is asked for layers, unless it is to be none.
fn hub(address: Option<String>, token: Option<String>) -> Result<Option<Hub>, SettingsError> {
    let address = address.filter(|address| !address.is_empty());
    let address = address.unwrap_or_else(|| HUB_DEFAULT.to_owned());
    if address == HUB_NONE {
        return Ok(None);
    }
    let is_secret = address.starts_with("https://");
    if !is_secret && !address.starts_with("http://") {
        return Err(SettingsError::Invalid {
            origin: "the hub".to_owned(),
            reason: format!("`{address}` is no address; hint: give https://… or `{HUB_NONE}`"),
        });
    }
    Ok(Some(Hub {
        address,
        // Not over a connection that anybody can read.
        token: token.filter(|_| is_secret),
    }))
}

fn settings(layer: Layer, places: Places) -> Result<Settings, SettingsError> {
    let user_home = places.user_home.as_deref();
    let Layer {
        models,
        mesh: mesh_flags,
        network,
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
    let way = mesh::way(&mesh_flags, !named.is_empty())?;
    let home = places.home;
    Ok(Settings {
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
            memory_bytes_max: models.max_vram.map(mesh::bytes_of_gigabytes),
            split: mesh::split(&mesh_flags, &way),
            split_precision: mesh::precision(&mesh_flags),
            hub: hub(models.hub, places.hub_token)?,
            keeps_weights: models.no_share == Some(true),
            cache_dir: places.cache_dir,
            mesh: mesh::settings(mesh_flags, network, &way, &home, places.host_name),
        },
        way,
        home,
        port: server.port.unwrap_or(PORT_DEFAULT),
        console: console_port(&server),
        listen_all: server.listen_all.unwrap_or(false),
        api_key: server.api_key.filter(|key| !key.is_empty()),
        hosts: server.host.unwrap_or_default(),
        cors_origins: server.cors_origin.unwrap_or_default(),
        grace: grace_seconds.map_or(GRACE_DEFAULT, Duration::from_secs),
        log_format: talk.log_format.unwrap_or_default(),
        log_level: talk.log_level,
    })
}

fn console_port(server: &ServerFlags) -> ConsolePort {
    match (server.console, server.no_console) {
        (_, Some(true)) => ConsolePort::Off,
        (Some(port), _) => ConsolePort::Asked(port),
        (None, _) => ConsolePort::Usual,
    }
}

/// The model inside the program, if it has one.
#[cfg(feature = "solo")]
pub(crate) fn starter() -> Option<ModelSource> {
    Some(ModelSource::Embedded {
        name: mesh_llm::STARTER_NAME.to_owned(),
        bytes: mesh_llm::STARTER,
    })
}

/// The model inside the program, if it has one.
#[cfg(not(feature = "solo"))]
pub(crate) fn starter() -> Option<ModelSource> {
    None
}

fn model_sources(named: &[String], user_home: Option<&Path>) -> Vec<ModelSource> {
    let is_it = |inside: &ModelSource, wanted: &str| match inside {
        ModelSource::Embedded { name, .. } => name.eq_ignore_ascii_case(wanted),
        ModelSource::Named(_) | ModelSource::Path(_) => false,
    };
    let sources = named.iter().map(|name| {
        let inside = starter().filter(|inside| is_it(inside, name));
        inside.unwrap_or_else(|| source(name, user_home))
    });
    sources.collect()
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

/// Where things are kept that can be made again.
fn cache_dir(user_home: Option<&Path>, environment: &Environment) -> Option<PathBuf> {
    let usual = if cfg!(target_os = "macos") {
        "Library/Caches"
    } else {
        ".cache"
    };
    let folder = environment
        .path("XDG_CACHE_HOME")
        .or_else(|| Some(user_home?.join(usual)))?;
    Some(folder.join("mesh-llm"))
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
