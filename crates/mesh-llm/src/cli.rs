//! What can be typed. The structs of settings double as the schema of `config.toml` and of the
//! `MESH_LLM_*` variables, so that a setting is declared once.

mod arguments;
mod flags;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;

pub(crate) use self::arguments::{
    ChatArguments, Expiry, InviteArguments, InvitesArguments, JoinArguments, LeaveArguments,
    ModelArguments, ModelsArguments, ModelsCommand, PlanArguments, Revocable, RevokeArguments,
    SliceArguments, StatusArguments,
};
pub(crate) use self::flags::{
    Layer, MeshFlags, ModelFlags, NetworkFlags, ServerFlags, with_values,
};
use crate::failure::Failure;

const AFTER_HELP: &str = "\
Settings: a flag wins over a variable (--ctx-size: MESH_LLM_CTX_SIZE), a variable over the
file config.toml (ctx_size) in MESH_LLM_HOME [default: ~/.mesh-llm]. In the file, keys may stand
in a table named like their heading above: [models], [api], [mesh], [network], [output].

Exit codes: 0 stopped as asked, 1 failed, 2 wrong flag or setting, 3 a model can't be served,
4 the port can't be opened, 130 and 143 stopped at once by a second Ctrl-C or SIGTERM.";

/// Serve language models on an OpenAI-compatible API at http://localhost:9337/v1, on one machine
/// or on several that form a mesh.
///
/// With --model, serve it and open a mesh that other machines join with --join TICKET. Without
/// any flag, wait for `mesh-llm load` or `mesh-llm join` from another terminal. The model
/// `starter` is inside the program and explains mesh-llm.
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
    /// Show which machines would run which layers of a model, and how fast that would be.
    Plan(Box<PlanArguments>),
    /// Show the running node, its mesh, models and requests.
    Status(StatusArguments),
    /// Make a ticket that lets other machines into the running node's mesh.
    Invite(InviteArguments),
    /// List the tickets that the running node made.
    Invites(InvitesArguments),
    /// Take a ticket back, and the memberships that it gave; or expel one member.
    Revoke(RevokeArguments),
    /// Let the running node join a mesh; if none runs, start one that does.
    Join(JoinArguments),
    /// Let the running node leave its mesh.
    Leave(LeaveArguments),
    /// Let the running node load a model.
    Load(ModelArguments),
    /// Let the running node drop a model.
    Drop(ModelArguments),
    /// Replace the key by which meshes know this machine, after somebody may have copied it.
    RotateKey,
    /// Print the completion script of a shell.
    Completions {
        /// Which shell.
        shell: Shell,
    },
    /// Print the man page, or that of one command.
    Man {
        /// Which command; without it, the program and its settings.
        command: Option<String>,
    },
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
        let own = match &self.command {
            Some(Command::Chat(arguments)) => arguments.layer(),
            Some(Command::Models(arguments)) => arguments.layer(),
            Some(Command::Plan(arguments)) => arguments.layer(),
            Some(Command::Status(arguments)) => arguments.node.layer(),
            Some(Command::Invite(arguments)) => arguments.node.layer(),
            Some(Command::Invites(arguments)) => arguments.node.layer(),
            Some(Command::Revoke(arguments)) => arguments.node.layer(),
            Some(Command::Join(arguments)) => arguments.node.layer(),
            Some(Command::Leave(arguments)) => arguments.node.layer(),
            Some(Command::Load(arguments) | Command::Drop(arguments)) => arguments.node.layer(),
            Some(Command::RotateKey | Command::Completions { .. } | Command::Man { .. }) | None => {
                return root;
            }
        };
        own.over(root)
    }
}

/// Prints the completion script.
pub(crate) fn print_completions(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "mesh-llm", &mut script);
    print(&script)
}

/// Prints the man page of the program or of one of its commands, in roff.
pub(crate) fn print_man_page(command: Option<&str>) -> Result<(), Failure> {
    let mut page = Vec::new();
    let mut cli = Cli::command();
    cli.build();
    let shown = match command {
        None => cli,
        Some(name) => cli.find_subcommand(name).cloned().ok_or_else(|| {
            Failure::settings(format!(
                "there is no command `{name}`; hint: `mesh-llm --help` lists them"
            ))
        })?,
    };
    clap_mangen::Man::new(shown)
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
