//! How a command fails: one message, one exit code.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;

use crate::console::Console;
use crate::settings::{Environment, SettingsError, early_log_format};

/// Why the program ends early. The kinds are the documented exit codes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    kind: Kind,
    message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Other,
    Settings,
    Model,
    Port,
}

impl Failure {
    pub(crate) fn other(message: impl Into<String>) -> Self {
        Self::of(Kind::Other, message)
    }

    pub(crate) fn settings(message: impl Into<String>) -> Self {
        Self::of(Kind::Settings, message)
    }

    pub(crate) fn model(message: impl Into<String>) -> Self {
        Self::of(Kind::Model, message)
    }

    pub(crate) fn port(message: impl Into<String>) -> Self {
        Self::of(Kind::Port, message)
    }

    fn of(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// What is told.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Tells the user, and gives the exit code.
    pub(crate) fn report(&self, console: Console) -> ExitCode {
        let (name, code) = match self.kind {
            Kind::Other => ("failed", 1),
            Kind::Settings => ("settings", 2),
            Kind::Model => ("model", 3),
            Kind::Port => ("port", 4),
        };
        console.error(name, &self.message);
        ExitCode::from(code)
    }
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Self {
        Self::settings(error.to_string())
    }
}

impl From<node::StartError> for Failure {
    fn from(error: node::StartError) -> Self {
        Self::of(Kind::Model, error.to_string())
    }
}

impl From<node::MeshRequestError> for Failure {
    fn from(error: node::MeshRequestError) -> Self {
        let kind = match &error {
            node::MeshRequestError::Mesh(mesh::net::MeshError::PortInUse(_)) => Kind::Port,
            _ => Kind::Other,
        };
        Self::of(kind, error.to_string())
    }
}

impl From<mesh_llm::Error> for Failure {
    fn from(error: mesh_llm::Error) -> Self {
        match error {
            mesh_llm::Error::Start(error) => error.into(),
            error => Self::other(error.to_string()),
        }
    }
}

/// Shows help, the version, or what is wrong with the flags.
pub(crate) fn usage(
    error: &clap::Error,
    arguments: &[OsString],
    environment: &Environment,
) -> ExitCode {
    let is_answer = matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    );
    let format = early_log_format(arguments, environment);
    if is_answer || format == crate::LogFormat::Pretty {
        // Fails only when nobody reads it.
        let _ = error.print();
        return ExitCode::from(u8::from(!is_answer) * 2);
    }
    let text = error.render().to_string();
    let message = text.lines().next().unwrap_or_default();
    Failure::settings(message.trim_start_matches("error: ")).report(Console::new(format))
}
