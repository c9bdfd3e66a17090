//! What the commands take.

use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use mesh::Role;
use mesh::admission::TicketId;

use super::{Layer, ModelFlags, ServerFlags};

/// Digits of a node's id that name it: as many as tables show, up to all.
const NODE_DIGITS: RangeInclusive<usize> = 10..=64;

/// Longest life of a ticket with an end: ten years.
const EXPIRY_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// Which running node a command talks to.
#[derive(Debug, Clone, Args)]
pub(crate) struct NodeFlags {
    /// Port of the running node's management API [default: 3131].
    #[arg(long, value_name = "PORT")]
    console: Option<u16>,
    /// Key that the node wants. Better set as MESH_LLM_API_KEY: others can see flags.
    #[arg(long, value_name = "KEY")]
    api_key: Option<String>,
}

impl NodeFlags {
    /// The settings among the flags.
    pub(super) fn layer(&self) -> Layer {
        Layer {
            server: ServerFlags {
                console: self.console,
                api_key: self.api_key.clone(),
                ..ServerFlags::default()
            },
            ..Layer::default()
        }
    }
}

/// What `models` takes.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct ModelsArguments {
    #[command(subcommand)]
    pub(crate) command: Option<ModelsCommand>,
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

/// What can be done with a model file.
#[derive(Debug, Subcommand)]
pub(crate) enum ModelsCommand {
    /// Write some layers of a model as a file of their own, as a machine of a split runs them.
    Slice(SliceArguments),
}

/// What `models slice` takes.
#[derive(Debug, Args)]
pub(crate) struct SliceArguments {
    /// The model: a GGUF file, or any part of one that has several.
    pub(crate) file: PathBuf,
    /// Layers, counted from 0: `0..12` are the first twelve. A slice to the end has norm and head too.
    #[arg(long, value_name = "A..B", value_parser = layers)]
    pub(crate) layers: Range<u32>,
    /// File to write [default: NAME-layers-A-B.gguf in this folder].
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

fn layers(text: &str) -> Result<Range<u32>, String> {
    let wrong = || format!("`{text}` is no range of layers; hint: 0..12 are the first twelve");
    let (start, end) = text.split_once("..").ok_or_else(wrong)?;
    let start = start.trim().parse().map_err(|_| wrong())?;
    let end = end.trim().parse().map_err(|_| wrong())?;
    if start >= end {
        return Err(format!(
            "`{text}` holds no layer; hint: 0..12 are the first twelve"
        ));
    }
    Ok(start..end)
}

/// What `plan` takes.
#[derive(Debug, Args)]
pub(crate) struct PlanArguments {
    /// A GGUF file, a model on this machine by name, or a well-known one such as Llama-3.3-70B:Q4_K_M.
    pub(crate) model: String,
    /// Machines: memory, bandwidth in GB/s and round trip of each, as in 128G,64G/400@5ms [default: this
    /// machine, and the others of its mesh].
    #[arg(long, value_name = "LIST")]
    pub(crate) nodes: Option<String>,
    /// Split even what fits on one machine.
    #[arg(long)]
    pub(crate) split: bool,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Tokens of context [default: 8192].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    ctx_size: Option<u32>,
    /// Streams at once [default: 4].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    parallel: Option<u32>,
    /// Folder to look in, besides ~/.models and the Hugging Face cache. May be repeated.
    #[arg(long, value_name = "DIR")]
    models_dir: Option<Vec<PathBuf>>,
    #[command(flatten)]
    node: NodeFlags,
}

impl PlanArguments {
    /// The settings among the flags.
    pub(super) fn layer(&self) -> Layer {
        let mut layer = self.node.layer();
        layer.models.models_dir.clone_from(&self.models_dir);
        layer.models.ctx_size = self.ctx_size;
        layer.models.parallel = self.parallel;
        layer
    }
}

impl ModelsArguments {
    /// The settings among the flags.
    pub(super) fn layer(&self) -> Layer {
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
    pub(super) fn layer(&self) -> Layer {
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

/// What `status` takes.
#[derive(Debug, Args)]
pub(crate) struct StatusArguments {
    /// Print JSON: what /api/status answers; with --watch, one event a line.
    #[arg(long)]
    pub(crate) json: bool,
    /// Go on and show each change, until Ctrl-C.
    #[arg(long)]
    pub(crate) watch: bool,
    #[command(flatten)]
    pub(super) node: NodeFlags,
}

/// What `invite` takes.
#[derive(Debug, Args)]
pub(crate) struct InviteArguments {
    /// What the ticket admits as: serve (may run models) or client (sends requests only).
    #[arg(long, value_name = "ROLE", default_value = "serve")]
    pub(crate) role: Role,
    /// How long it admits, such as 30min, 24h or 7d; or `never`, for one that does not end.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = expiry)]
    pub(crate) expires: Expiry,
    /// How many machines it admits [default: any number].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) uses: Option<u32>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(super) node: NodeFlags,
}

/// How long a ticket admits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// So long from now.
    After(Duration),
    /// For ever.
    Never,
}

fn expiry(text: &str) -> Result<Expiry, String> {
    if text == "never" {
        return Ok(Expiry::Never);
    }
    let span = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if span >= Duration::from_secs(1) && span <= EXPIRY_MAX {
        Ok(Expiry::After(span))
    } else {
        Err("it must be between a second and ten years, or `never`".to_owned())
    }
}

/// What `invites` takes.
#[derive(Debug, Args)]
pub(crate) struct InvitesArguments {
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(super) node: NodeFlags,
}

/// What `revoke` takes.
#[derive(Debug, Args)]
pub(crate) struct RevokeArguments {
    /// Id of a ticket, as `mesh-llm invites` lists them, or of a member, as `mesh-llm status` does.
    #[arg(value_parser = revocable)]
    pub(crate) id: Revocable,
    #[command(flatten)]
    pub(super) node: NodeFlags,
}

/// What can be taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Revocable {
    /// A ticket.
    Ticket(TicketId),
    /// The node whose id is or begins with these hexadecimal digits, in lower case.
    Node(String),
}

/// Tells the two by their length: a ticket's id has 16 digits, a node's 64, of which a table shows 10.
fn revocable(text: &str) -> Result<Revocable, String> {
    if let Ok(ticket) = text.parse() {
        return Ok(Revocable::Ticket(ticket));
    }
    let is_hexadecimal = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hexadecimal && NODE_DIGITS.contains(&text.len()) {
        return Ok(Revocable::Node(text.to_ascii_lowercase()));
    }
    Err(format!(
        "not a ticket id: expected 16 hexadecimal digits; nor that of a node: {} to {}; hint: \
         `mesh-llm invites` lists tickets, `mesh-llm status` members",
        NODE_DIGITS.start(),
        NODE_DIGITS.end()
    ))
}

/// What `join` takes.
#[derive(Debug, Args)]
pub(crate) struct JoinArguments {
    /// The ticket that `mesh-llm invite` printed on a member.
    pub(crate) ticket: String,
    #[command(flatten)]
    pub(super) node: NodeFlags,
}

/// What `leave` takes.
#[derive(Debug, Args)]
pub(crate) struct LeaveArguments {
    #[command(flatten)]
    pub(super) node: NodeFlags,
}

/// What `load` and `drop` take.
#[derive(Debug, Args)]
pub(crate) struct ModelArguments {
    /// Name of the model; to load one, also a GGUF file or `starter`.
    pub(crate) model: String,
    #[command(flatten)]
    pub(super) node: NodeFlags,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_and_nodes_are_told_by_the_length_of_their_ids() {
        let ticket = TicketId::from_bytes([0xab; 8]);
        let node = |digits: &str| Ok(Revocable::Node(digits.to_owned()));
        assert_eq!(revocable(&"ab".repeat(8)), Ok(Revocable::Ticket(ticket)));
        assert_eq!(revocable(&"AB".repeat(8)), Ok(Revocable::Ticket(ticket)));
        for bytes in [5, 7, 9, 32] {
            let digits = "ab".repeat(bytes);
            assert_eq!(revocable(&digits), node(&digits));
        }
        assert_eq!(revocable("ABCDEF0123456"), node("abcdef0123456"));
        for wrong in ["", "abcdef012", "abcdef012g", &"ab".repeat(33)] {
            let error = revocable(wrong).unwrap_err();
            assert!(error.contains("10 to 64; hint: "), "{wrong}: {error}");
        }
    }
}
