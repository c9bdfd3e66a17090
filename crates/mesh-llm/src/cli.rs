//! What can be typed. The structs of settings double as the schema of `config.toml` and of the
//! `MESH_LLM_*` variables, so that a setting is declared once.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;

use crate::failure::Failure;
use crate::settings::LogFormat;

/// The engine's bounds, so that a larger number is told and not silently cut.
const SLOTS_MAX: i64 = 256;
const QUEUE_MAX: i64 = 10_000;

const AFTER_HELP: &str = "\
Settings: a flag wins over a variable (--ctx-size: MESH_LLM_CTX_SIZE), a variable over the
file config.toml (ctx_size) in MESH_LLM_HOME [default: ~/.mesh-llm].

Exit codes: 0 stopped as asked, 1 failed, 2 wrong flag or setting, 3 a model can't be served,
4 the port can't be opened, 130 and 143 stopped at once by a second Ctrl-C or SIGTERM.";

/// Serve language models on an OpenAI-compatible API at http://localhost:9337/v1.
///
/// Without --model, the small model inside the program is served: it explains mesh-llm.
#[derive(Debug, Parser)]
#[command(name = "mesh-llm", bin_name = "mesh-llm", version, after_help = AFTER_HELP, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    layer: Layer,
    /// Read settings from this file instead.
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What to do instead of serving.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Chat in the terminal, with a running node or with a model of its own.
    Chat(Box<ChatArguments>),
    /// List the models on this machine.
    Models(ModelsArguments),
    /// Print the completion script of a shell.
    Completions {
        /// Which shell.
        shell: Shell,
    },
    /// Print the man page.
    Man,
}

/// What `models` takes.
#[derive(Debug, Args)]
pub(crate) struct ModelsArguments {
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Folder to look in, besides ~/.models and the Hugging Face cache. May be repeated.
    #[arg(long, value_name = "DIR")]
    models_dir: Option<Vec<PathBuf>>,
    /// Tokens of context that a model must fit with.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    ctx_size: Option<u32>,
}

impl ModelsArguments {
    /// The settings among the flags.
    fn layer(&self) -> Layer {
        let mut layer = Layer::default();
        layer.models.models_dir.clone_from(&self.models_dir);
        layer.models.ctx_size = self.ctx_size;
        layer
    }
}

/// What `chat` takes.
#[derive(Debug, Args)]
pub(crate) struct ChatArguments {
    /// Ask this, print the answer, and end. Without it, text from a pipe is the question.
    pub(crate) prompt: Option<String>,
    /// Talk to this server instead of the node on this machine.
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// Instructions for the whole conversation.
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// How freely words are drawn; 0 always takes the likeliest.
    #[arg(long, value_name = "T")]
    pub(crate) temperature: Option<f32>,
    /// Same seed, same answer.
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u32>,
    /// End an answer after so many tokens.
    #[arg(long, value_name = "N")]
    pub(crate) max_tokens: Option<u32>,
    /// Print the answer to a single question as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Port of the node on this machine [default: 9337].
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Key that the server wants. Better set as MESH_LLM_API_KEY: others can see flags.
    #[arg(long, value_name = "KEY")]
    api_key: Option<String>,
    #[command(flatten)]
    models: ModelFlags,
}

impl ChatArguments {
    /// The settings among the flags.
    fn layer(&self) -> Layer {
        Layer {
            models: self.models.clone(),
            server: ServerFlags {
                port: self.port,
                api_key: self.api_key.clone(),
                ..ServerFlags::default()
            },
            ..Layer::default()
        }
    }
}

impl Cli {
    /// Reads what was typed; the first argument is the program's name.
    pub(crate) fn read(arguments: &[OsString]) -> Result<Self, clap::Error> {
        let matches = match with_values(Self::command()).try_get_matches_from(arguments) {
            Err(error) if error.kind() == ErrorKind::DisplayHelp => {
                // The help of the plain flags: `--listen-all`, not `--listen-all[=<BOOL>]`.
                let plain = Self::command().try_get_matches_from(arguments).err();
                let plain = plain.filter(|plain| plain.kind() == ErrorKind::DisplayHelp);
                return Err(plain.unwrap_or(error));
            }
            result => result?,
        };
        Self::from_arg_matches(&matches)
    }

    /// The settings among all flags. Those after a command win over those before it.
    pub(crate) fn layer(&self) -> Layer {
        let root = self.layer.clone();
        match &self.command {
            Some(Command::Chat(arguments)) => arguments.layer().over(root),
            Some(Command::Models(arguments)) => arguments.layer().over(root),
            _ => root,
        }
    }
}

/// Settings from one place: the flags, the variables, or the file.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Layer {
    #[command(flatten)]
    pub(crate) models: ModelFlags,
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
}

/// How the API is reached.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "API")]
pub(crate) struct ServerFlags {
    /// Port of the API; 0 picks a free one [default: 9337].
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,
    /// Let other machines reach the API. They need a key, which is printed once when it is made.
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
    /// Web origin whose pages may call the API, such as https://example.org. May be repeated.
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

/// `command` with flags that also take `=true` and `=false`, as variables and files have them,
/// and as a flag that takes back what the file says.
pub(crate) fn with_values(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|argument| match argument.get_id().as_str() {
        "no_draft" | "listen_all" => argument
            .num_args(0..=1)
            .require_equals(true)
            .value_name("BOOL"),
        _ => argument,
    });
    command.mut_subcommands(with_values)
}

/// Prints the completion script.
pub(crate) fn print_completions(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "mesh-llm", &mut script);
    print(&script)
}

/// Prints the man page, in roff.
pub(crate) fn print_man_page() -> Result<(), Failure> {
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command())
        .render(&mut page)
        .map_err(|error| Failure::other(error.to_string()))?;
    print(&page)
}

/// Writes data to stdout. A reader that has seen enough is no failure.
pub(crate) fn print(data: &[u8]) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(data).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::other(format!("can't write the output: {error}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use clap::CommandFactory;

    use super::{Cli, with_values};

    #[test]
    fn flags_are_consistent() {
        super::Cli::command().debug_assert();
        with_values(Cli::command()).debug_assert();
    }

    /// What a switch is set to by these arguments.
    #[test]
    fn switches_take_a_value_but_do_not_show_it() {
        for (arguments, listen_all, no_draft) in [
            (&[][..], None, None),
            (&["--listen-all", "--no-draft"], Some(true), Some(true)),
            (
                &["--listen-all=false", "--no-draft=true"],
                Some(false),
                Some(true),
            ),
            (
                &["--no-draft", "chat", "--no-draft=false"],
                None,
                Some(false),
            ),
        ] {
            let arguments = [&["mesh-llm"], arguments].concat();
            let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
            let layer = Cli::read(&arguments).unwrap().layer();
            assert_eq!(layer.server.listen_all, listen_all, "{arguments:?}");
            assert_eq!(layer.models.no_draft, no_draft, "{arguments:?}");
        }
        for arguments in [["m", "--help"], ["m", "-h"], ["/x/m", "chat"]] {
            let mut arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
            arguments.push("-h".into());
            let help = Cli::read(&arguments).unwrap_err().to_string();
            assert!(help.contains("Usage: mesh-llm"), "{help}");
            assert!(help.contains("--no-draft"), "{help}");
            assert!(!help.contains("BOOL"), "{help}");
        }
    }

    /// Numbers beyond what the engine takes are refused, not cut.
    #[test]
    fn bounds_are_told() {
        for (flag, most) in [("--queue", 10_000), ("--parallel", 256)] {
            for (value, taken) in [(0, false), (1, true), (most, true), (most + 1, false)] {
                let arguments = ["mesh-llm".into(), format!("{flag}={value}").into()];
                assert_eq!(Cli::read(&arguments).is_ok(), taken, "{flag} {value}");
            }
        }
    }
}
