//! What a node is started with. Already resolved: nothing here reads flags, files or variables.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mesh::Role;
use mesh::net::Network;
use split::spec::Precision;

/// Everything a node needs to know at its start.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Models to serve, in the order in which they are listed and chosen by default.
    pub models: Vec<ModelSource>,
    /// Tokens that all running sequences of a model share, and the most that one can hold;
    /// `None`: what the model was trained for, within reason.
    pub context_tokens: Option<u32>,
    /// Sequences that run at the same time, per model; `None`: the engine's default.
    pub slots: Option<u32>,
    /// Layers to keep on the GPU; `None`: all that fit.
    pub gpu_layers: Option<u32>,
    /// Device to run on, by llama.cpp's name; `None`: the best there is.
    pub device: Option<String>,
    /// Speculation.
    pub draft: Draft,
    /// Threads that compute; `None`: one per physical core.
    pub threads: Option<u32>,
    /// Requests that may wait for a slot, per model; `None`: the engine's default.
    pub queue_max: Option<u32>,
    /// Folders in which models are looked up by name, first match wins. Hugging Face cache
    /// folders are fine: they are searched through.
    pub models_dirs: Vec<PathBuf>,
    /// Most memory that models may use together, bytes; `None`: what the machine has.
    pub memory_bytes_max: Option<u64>,
    /// Which models run on several machines of the mesh.
    pub split: SplitModels,
    /// How hidden states travel between the machines of a split model.
    pub split_precision: Precision,
    /// Where layers of split models come from that no member gives; `None`: from nowhere else.
    pub hub: Option<Hub>,
    /// Whether members get no weights of models on this disk, only what they need to check those from
    /// elsewhere.
    pub keeps_weights: bool,
    /// Folder for what can be made again, such as slices of models; `None`: among the node's files.
    pub cache_dir: Option<PathBuf>,
    /// What the node is in a mesh, and how it gets there.
    pub mesh: MeshSettings,
}

/// A hub of models that gives ranges of its files over HTTP.
#[derive(Clone, PartialEq, Eq)]
pub struct Hub {
    /// Its address, such as `https://huggingface.co`.
    pub address: String,
    /// The user's token there, for models that ask for one.
    pub token: Option<String>,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The token is nobody's business.
        f.debug_struct("Hub")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// Which models run on several machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SplitModels {
    /// None: what does not fit is refused, and so are models that other members ask this node to run whole.
    #[default]
    Never,
    /// Those that do not fit here.
    IfNeeded,
    /// All.
    Always,
}

/// How a node takes part in a mesh. Nothing here makes it join one: that is asked of a running
/// node.
#[derive(Debug, Clone)]
pub struct MeshSettings {
    /// Folder of its key and memberships; `None` keeps nothing, as clients do.
    pub home: Option<PathBuf>,
    /// How it is connected.
    pub network: Network,
    /// What it wants to be: a client never runs a model.
    pub role: Role,
    /// Most clients that are connected to it at once.
    pub clients_max: usize,
    /// Takes up no model at the start, only when the mesh needs one.
    pub standby: bool,
    /// What people call the machine.
    pub node_name: String,
    /// Where it stands, in its owner's words; may be empty.
    pub region: String,
    /// How long a peer may read nothing of an answer before it is cut off.
    pub unread_max: Duration,
    /// How long the first plan of a split model waits until machines have run a layer of it.
    pub trial_wait_max: Duration,
}

/// How long a peer may read nothing. Its own client may be slow, so this is longer than the API's
/// patience with that.
const UNREAD_MAX: Duration = Duration::from_secs(90);

/// How long the first plan waits for trials: longer would be a start that seems to hang.
const TRIAL_WAIT_MAX: Duration = Duration::from_secs(12);

impl Default for MeshSettings {
    fn default() -> Self {
        Self {
            home: None,
            network: Network::default(),
            role: Role::Serve,
            clients_max: mesh::net::Settings::CLIENTS_MAX_DEFAULT,
            standby: false,
            node_name: String::new(),
            region: String::new(),
            unread_max: UNREAD_MAX,
            trial_wait_max: TRIAL_WAIT_MAX,
        }
    }
}

/// Where a model comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    /// A name, looked up in [`Settings::models_dirs`].
    Named(String),
    /// A file. Of a multi-part model, any part.
    Path(PathBuf),
    /// A model that is part of the program.
    Embedded {
        /// Name under which it is served.
        name: String,
        /// The GGUF file's bytes.
        bytes: &'static [u8],
    },
}

impl ModelSource {
    /// Reads what a user typed: a path if it ends in `.gguf`, has a path separator or names an
    /// existing file, otherwise a name.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let path = Path::new(text);
        let is_gguf = path
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
        if is_gguf || text.contains(std::path::MAIN_SEPARATOR) || path.is_file() {
            Self::Path(path.to_path_buf())
        } else {
            Self::Named(text.to_owned())
        }
    }
}

/// What speculation drafts with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Draft {
    /// No speculation.
    None,
    /// Prompt lookup: drafts are text that the context already holds.
    #[default]
    Auto,
    /// A smaller model with the same vocabulary.
    Model(ModelSource),
}
