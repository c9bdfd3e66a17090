//! Every setting, declared once: as a flag here, and by the same names as a variable and as a key
//! of `config.toml`. A struct is a table of the file, named like its heading.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{ArgAction, Args};

use crate::settings::{LogFormat, SplitPrecision};

/// The engine's bounds, so that a larger number is told and not silently cut.
const SLOTS_MAX: i64 = 256;
const QUEUE_MAX: i64 = 10_000;
/// Clients that one node may take: each costs some 50 KB.
const CLIENTS_MAX: i64 = 100_000;
/// More memory than any machine has, GB.
const VRAM_GB_MAX: f64 = 1e6;

/// Settings from one place: the flags, the variables, or the file.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Layer {
    #[command(flatten)]
    pub(crate) models: ModelFlags,
    #[command(flatten)]
    pub(crate) mesh: MeshFlags,
    #[command(flatten)]
    pub(crate) network: NetworkFlags,
    #[command(flatten)]
    pub(crate) server: ServerFlags,
    #[command(flatten)]
    pub(crate) talk: TalkFlags,
}

/// Which models, and how they run.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Models")]
pub(crate) struct ModelFlags {
    /// Model to serve: a name from `mesh-llm models`, a GGUF file, or `starter`. May be repeated.
    #[arg(long, value_name = "NAME|PATH")]
    pub(crate) model: Option<Vec<String>>,
    /// Folder to look for models in, besides ~/.models and the Hugging Face cache. May be repeated.
    #[arg(long, value_name = "DIR")]
    pub(crate) models_dir: Option<Vec<PathBuf>>,
    /// Tokens of context that running requests share; the most that one of them can hold.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) ctx_size: Option<u32>,
    /// Requests that are answered at the same time, per model, at most 256.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=SLOTS_MAX))]
    pub(crate) parallel: Option<u32>,
    /// Layers to keep on the GPU [default: all that fit].
    #[arg(long, value_name = "N")]
    pub(crate) gpu_layers: Option<u32>,
    /// Device to run on, such as CUDA0.
    #[arg(long, value_name = "DEV")]
    pub(crate) device: Option<String>,
    /// Small model with the same vocabulary that drafts tokens for the large one to check.
    #[arg(long, value_name = "PATH", conflicts_with = "no_draft")]
    pub(crate) draft: Option<String>,
    /// No speculation, not even with words of the prompt.
    #[arg(
        long,
        num_args = 0,
        default_missing_value = "true",
        hide_possible_values = true
    )]
    pub(crate) no_draft: Option<bool>,
    /// Threads that compute [default: one per core].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) threads: Option<u32>,
    /// Memory that models may use, GB, such as 12 or 7.5 [default: what is free].
    #[arg(long, value_name = "GB", value_parser = gigabytes)]
    pub(crate) max_vram: Option<f64>,
    /// Where layers of split models come from that no member of the mesh gives: a hub's address, or
    /// `none` [default: https://huggingface.co].
    #[arg(long, value_name = "URL")]
    pub(crate) hub: Option<String>,
    /// Give members no layers of the models on this disk; they get them elsewhere.
    #[arg(
        long,
        num_args = 0,
        default_missing_value = "true",
        hide_possible_values = true
    )]
    pub(crate) no_share: Option<bool>,
}

/// The place in a mesh.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Mesh")]
pub(crate) struct MeshFlags {
    /// Join the mesh that this ticket leads to; `mesh-llm invite` on a member prints one.
    #[arg(long, value_name = "TICKET", conflicts_with_all = ["rejoin", "no_mesh", "name"])]
    pub(crate) join: Option<String>,
    /// Come back to the mesh that this machine was in last.
    #[arg(
        long,
        num_args = 0,
        default_missing_value = "true",
        hide_possible_values = true,
        conflicts_with_all = ["no_mesh", "name"]
    )]
    pub(crate) rejoin: Option<bool>,
    /// Only send requests to a mesh, never run a model. The node's key is made for each run.
    #[arg(
        long,
        num_args = 0,
        default_missing_value = "true",
        hide_possible_values = true
    )]
    pub(crate) client: Option<bool>,
    /// Take up no model at the start, only when the mesh needs one.
    #[arg(
        long,
        num_args = 0,
        default_missing_value = "true",
        hide_possible_values = true
    )]
    pub(crate) standby: Option<bool>,
    /// Run the models on several machines of the mesh, even those that fit on this one.
    #[arg(
        long,
        num_args = 0,
        default_missing_value = "true",
        hide_possible_values = true,
        conflicts_with_all = ["client", "no_mesh", "no_split"]
    )]
    pub(crate) split: Option<bool>,
    /// How hidden states travel between the machines of a split model. f32: as computed. f16: half the
    /// bytes, for slow links, and text that may differ [default: f32].
    #[arg(long, value_name = "FORMAT", value_enum, hide_possible_values = true)]
    pub(crate) split_precision: Option<SplitPrecision>,
    /// Run no model on several machines, and none that others ask this one for: what does not fit here is refused.
    #[arg(
        long,
        num_args = 0,
        default_missing_value = "true",
        hide_possible_values = true
    )]
    pub(crate) no_split: Option<bool>,
    /// Let a client keep its key, so that it can come back without a ticket.
    #[arg(
        long,
        num_args = 0,
        default_missing_value = "true",
        hide_possible_values = true
    )]
    pub(crate) keep_key: Option<bool>,
    /// Name of the mesh that this node opens.
    #[arg(long, value_name = "NAME", conflicts_with = "no_mesh")]
    pub(crate) name: Option<String>,
    /// Open no mesh: serve this machine alone.
    #[arg(
        long,
        num_args = 0,
        default_missing_value = "true",
        hide_possible_values = true
    )]
    pub(crate) no_mesh: Option<bool>,
    /// What the others call this machine [default: its host name].
    #[arg(long, value_name = "NAME")]
    pub(crate) node_name: Option<String>,
    /// Where this machine stands, in your words.
    #[arg(long, value_name = "REGION")]
    pub(crate) region: Option<String>,
    /// Clients that may be connected to this node at once [default: 256].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=CLIENTS_MAX))]
    pub(crate) max_clients: Option<u32>,
}

/// How members of a mesh reach each other.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Network")]
pub(crate) struct NetworkFlags {
    /// URL of a relay to use instead of the public ones, where no direct way is found. May be
    /// repeated.
    #[arg(
        long,
        value_name = "URL",
        alias = "relays",
        conflicts_with = "no_relay"
    )]
    pub(crate) relay: Option<Vec<String>>,
    /// Use no relay: direct connections only.
    #[arg(
        long,
        num_args = 0,
        default_missing_value = "true",
        hide_possible_values = true
    )]
    pub(crate) no_relay: Option<bool>,
    /// UDP port for other members [default: the last one, or any].
    #[arg(long, value_name = "PORT")]
    pub(crate) bind_port: Option<u16>,
    /// Local address to use, alone [default: all].
    #[arg(long, value_name = "IP")]
    pub(crate) bind_ip: Option<IpAddr>,
    /// Don't look for members on the local network by multicast.
    #[arg(
        long,
        num_args = 0,
        default_missing_value = "true",
        hide_possible_values = true
    )]
    pub(crate) no_mdns: Option<bool>,
}

/// How the APIs are reached.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "API")]
pub(crate) struct ServerFlags {
    /// Port of the API; 0 picks a free one [default: 9337].
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,
    /// Port of the management API; 0 picks a free one [default: 3131, or a free one if it is
    /// taken].
    #[arg(long, value_name = "PORT", conflicts_with = "no_console")]
    pub(crate) console: Option<u16>,
    /// No management API; commands such as `mesh-llm status` then can't reach the node.
    #[arg(
        long,
        num_args = 0,
        default_missing_value = "true",
        hide_possible_values = true
    )]
    pub(crate) no_console: Option<bool>,
    /// Let other machines reach the APIs. They need a key, which is printed once when it is made.
    #[arg(
        long,
        num_args = 0,
        default_missing_value = "true",
        hide_possible_values = true
    )]
    pub(crate) listen_all: Option<bool>,
    /// Key that requests must carry. Better set as MESH_LLM_API_KEY: others can see flags.
    #[arg(long, value_name = "KEY")]
    pub(crate) api_key: Option<String>,
    /// Name besides localhost by which this machine is called in URLs. May be repeated.
    #[arg(long, value_name = "NAME")]
    pub(crate) host: Option<Vec<String>>,
    /// Web origin whose pages may call the APIs, such as https://example.org. May be repeated.
    #[arg(long, value_name = "ORIGIN")]
    pub(crate) cors_origin: Option<Vec<String>>,
    /// Requests that may wait for a free place, per model, at most 10000 [default: 128].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=QUEUE_MAX))]
    pub(crate) queue: Option<u32>,
    /// Time that running answers get to finish after Ctrl-C, s [default: 30].
    #[arg(long, value_name = "N")]
    pub(crate) grace_seconds: Option<u64>,
}

/// What is shown.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct TalkFlags {
    /// pretty: for people, on stderr. json: one object a line, on stdout [default: pretty].
    #[arg(
        long,
        value_name = "FORMAT",
        value_enum,
        global = true,
        hide_possible_values = true
    )]
    pub(crate) log_format: Option<LogFormat>,
    /// What is logged: error, warn, info, debug, trace, or a filter such as engine=debug
    /// [default: warn; with json info].
    #[arg(long, value_name = "LEVEL", global = true)]
    pub(crate) log_level: Option<String>,
}

fn gigabytes(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "that is no number".to_owned())?;
    if number > 0.0 && number <= VRAM_GB_MAX {
        Ok(number)
    } else {
        Err(format!("{text} is not above 0 and at most {VRAM_GB_MAX}"))
    }
}

/// `command` with switches that also take `=true` and `=false`, as variables and files have them,
/// and as a flag that takes back what the file says.
pub(crate) fn with_values(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|argument| {
        let takes_nothing = argument.get_num_args() == Some(0.into());
        // Other switches, such as `--json`, are no settings: their action is another one.
        if takes_nothing && matches!(argument.get_action(), ArgAction::Set) {
            argument
                .num_args(0..=1)
                .require_equals(true)
                .value_name("BOOL")
        } else {
            argument
        }
    });
    command.mut_subcommands(with_values)
}

impl Layer {
    /// This layer, with what it leaves open taken from `lower`.
    pub(crate) fn over(self, lower: Self) -> Self {
        let (mut models, mut mesh) = (lower.models, lower.mesh);
        // A client runs no model: whichever of the two is said higher up holds.
        if self.mesh.client == Some(true) {
            models.model = None;
        } else if self.models.model.is_some() {
            mesh.client = None;
        }
        Self {
            models: self.models.over(models),
            mesh: self.mesh.over(mesh),
            network: self.network.over(lower.network),
            server: self.server.over(lower.server),
            talk: self.talk.over(lower.talk),
        }
    }
}

impl ModelFlags {
    fn over(self, lower: Self) -> Self {
        let (draft, no_draft) = either((self.draft, self.no_draft), (lower.draft, lower.no_draft));
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
            max_vram: self.max_vram.or(lower.max_vram),
            hub: self.hub.or(lower.hub),
            no_share: self.no_share.or(lower.no_share),
        }
    }
}

impl MeshFlags {
    fn over(self, lower: Self) -> Self {
        let is_said = self.join.is_some()
            || self.name.is_some()
            || self.rejoin == Some(true)
            || self.no_mesh == Some(true);
        let own = (self.split, self.no_split);
        let (split, no_split) = either(own, (lower.split, lower.no_split));
        // These four are one setting: which mesh.
        let lower_way = if is_said {
            Self::default()
        } else {
            lower.clone()
        };
        Self {
            join: self.join.or(lower_way.join),
            rejoin: self.rejoin.or(lower_way.rejoin),
            name: self.name.or(lower_way.name),
            no_mesh: self.no_mesh.or(lower_way.no_mesh),
            client: self.client.or(lower.client),
            standby: self.standby.or(lower.standby),
            split,
            no_split,
            split_precision: self.split_precision.or(lower.split_precision),
            keep_key: self.keep_key.or(lower.keep_key),
            node_name: self.node_name.or(lower.node_name),
            region: self.region.or(lower.region),
            max_clients: self.max_clients.or(lower.max_clients),
        }
    }
}

impl NetworkFlags {
    fn over(self, lower: Self) -> Self {
        let (relay, no_relay) = either((self.relay, self.no_relay), (lower.relay, lower.no_relay));
        Self {
            relay,
            no_relay,
            bind_port: self.bind_port.or(lower.bind_port),
            bind_ip: self.bind_ip.or(lower.bind_ip),
            no_mdns: self.no_mdns.or(lower.no_mdns),
        }
    }
}

impl ServerFlags {
    fn over(self, lower: Self) -> Self {
        let (console, no_console) = either(
            (self.console, self.no_console),
            (lower.console, lower.no_console),
        );
        Self {
            port: self.port.or(lower.port),
            console,
            no_console,
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

/// Two flags that set one thing: a layer that says either has spoken.
fn either<T>(
    own: (Option<T>, Option<bool>),
    lower: (Option<T>, Option<bool>),
) -> (Option<T>, Option<bool>) {
    match own {
        (None, None) => lower,
        own => own,
    }
}
