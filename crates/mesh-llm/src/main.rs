//! The program `mesh-llm`: reads what the user typed and runs one command.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod chat;
mod cli;
mod console;
mod control;
mod failure;
mod invite;
mod key;
mod load;
mod lock;
mod log;
mod member;
mod models;
mod panic;
mod plan;
mod progress;
mod qr;
mod rotate;
mod serve;
mod settings;
mod slice;
mod status;
mod table;

use std::process::ExitCode;
use std::time::Duration;

use crate::cli::{Cli, Command, ModelsCommand};
use crate::console::Console;
use crate::failure::Failure;
use crate::settings::{Environment, LogFormat, Settings};

/// Threads for HTTP and the rest: two, because the cores belong to the thread that decodes.
const RUNTIME_THREADS: usize = 2;
/// How long blocking work, such as a file that is still being read, may hold up the exit.
const RUNTIME_STOP_MAX: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let environment = Environment::of_process();
    let arguments: Vec<_> = std::env::args_os().collect();
    let console = Console::new(settings::early_log_format(&arguments, &environment));
    panic::report_to(console);
    let cli = match Cli::read(&arguments) {
        Ok(cli) => cli,
        Err(error) => return failure::usage(&error, &arguments, &environment),
    };
    match start(cli, &environment) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(console),
    }
}

fn start(cli: Cli, environment: &Environment) -> Result<(), Failure> {
    // These two need no settings, and must work when the settings are broken.
    match &cli.command {
        Some(Command::Completions { shell }) => return cli::print_completions(*shell),
        Some(Command::Man { command }) => return cli::print_man_page(command.as_deref()),
        _ => {}
    }
    let settings = settings::resolve(cli.layer(), cli.config.as_deref(), environment)?;
    let command = cli.command;
    // A join serves if no node runs yet.
    let is_serving = matches!(command, None | Some(Command::Join(_)));
    log::start(&settings, is_serving)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(RUNTIME_THREADS)
        .on_thread_park(split::handover::runtime_thread_parks)
        .on_thread_unpark(split::handover::runtime_thread_unparks)
        .enable_all()
        .build()
        .map_err(|error| Failure::other(format!("can't start threads: {error}")))?;
    let result = runtime.block_on(run(command, settings));
    runtime.shutdown_timeout(RUNTIME_STOP_MAX);
    result
}

async fn run(command: Option<Command>, settings: Settings) -> Result<(), Failure> {
    match command {
        None => serve::run(settings).await,
        Some(Command::Chat(arguments)) => chat::run(settings, &arguments).await,
        Some(Command::Models(arguments)) => match &arguments.command {
            Some(ModelsCommand::Slice(cut)) => slice::run(&settings, cut),
            None => models::run(&settings, arguments.json),
        },
        Some(Command::Plan(arguments)) => plan::run(&settings, &arguments).await,
        Some(Command::Status(arguments)) => status::run(&settings, &arguments).await,
        Some(Command::Invite(arguments)) => invite::make(&settings, &arguments).await,
        Some(Command::Invites(arguments)) => invite::list(&settings, arguments.json).await,
        Some(Command::Revoke(arguments)) => invite::revoke(&settings, &arguments.id).await,
        Some(Command::Join(arguments)) => member::join(settings, &arguments.ticket).await,
        Some(Command::Leave(_)) => member::leave(&settings).await,
        Some(Command::Load(arguments)) => load::load(&settings, &arguments.model).await,
        Some(Command::Drop(arguments)) => load::drop(&settings, &arguments.model).await,
        Some(Command::RotateKey) => rotate::run(&settings),
        // Done before the settings were read.
        Some(Command::Completions { .. } | Command::Man { .. }) => Ok(()),
    }
}
