//! What is told when the node is ready, and the ticket of its mesh.

use mesh::ticket::Ticket;
use node::{MeshRequestError, Node};
use serde_json::json;
use tokio::task::JoinError;

use super::servers::{Servers, api_url};
use crate::console::Console;
use crate::key;
use crate::qr;
use crate::settings::{Settings, Way};

/// The ticket, if it could be made; otherwise why not is told.
pub(super) fn made(
    made: Result<Result<Ticket, MeshRequestError>, JoinError>,
    console: Console,
) -> Option<Ticket> {
    let reason = match made {
        Ok(Ok(ticket)) => return Some(ticket),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "mesh-llm itself failed; hint: what went wrong is told above".to_owned(),
    };
    console.warn("no_ticket", &format!("there is no ticket: {reason}"));
    None
}

/// Tells that the node is ready.
pub(super) fn ready(node: &Node, settings: &Settings, servers: &Servers, ticket: Option<&Ticket>) {
    let console = Console::new(settings.log_format);
    let snapshot = node.snapshot();
    let mesh = snapshot.mesh.as_deref();
    let models: Vec<String> = node
        .models()
        .iter()
        .map(|model| model.name.clone())
        .collect();
    let url = api_url(servers.address);
    let console_url = servers
        .console
        .map(|address| format!("http://127.0.0.1:{}", address.port()));
    console.event(
        "ready",
        json!({
            "api_url": url,
            "console_url": console_url,
            "models": models,
            "listen": servers.address.to_string(),
            "version": env!("CARGO_PKG_VERSION"),
            "node_id": mesh.map(|mesh| mesh.me.to_string()),
            "mesh_id": mesh.map(|mesh| mesh.id.to_string()),
            "ticket": ticket.map(ToString::to_string),
        }),
    );
    console.say(&first_line(node, settings, &models, &url));
    if settings.listen_all {
        console.say(&format!(
            "other machines reach it on port {}",
            servers.address.port()
        ));
    }
    tell_key(servers, settings, console);
    let is_idle = models.is_empty() && mesh.is_none();
    if is_idle {
        console.say(&what_to_do(settings));
    } else {
        let name = models.first().map_or("auto", String::as_str);
        console.say(&try_it(&url, name, servers.key.is_some()));
    }
}

fn first_line(node: &Node, settings: &Settings, models: &[String], url: &str) -> String {
    if !models.is_empty() {
        let named: Vec<String> = models.iter().map(|name| format!("`{name}`")).collect();
        return format!("mesh-llm serves {} at {url}", named.join(", "));
    }
    let snapshot = node.snapshot();
    match snapshot.mesh.as_deref() {
        Some(mesh) => {
            let name = mesh.name.clone().unwrap_or_else(|| mesh.id.short());
            let verb = match settings.way {
                Way::Open { .. } => "opened",
                _ => "is in",
            };
            format!("mesh-llm {verb} the mesh {name}; its models are at {url}")
        }
        None => format!("mesh-llm is idle at {url}: it serves no model and is in no mesh"),
    }
}

fn tell_key(servers: &Servers, settings: &Settings, console: Console) {
    let Some(key) = &servers.key else {
        return;
    };
    let file = key::file(&settings.home);
    if key.is_new {
        // The key must not be lost in JSON mode either, and stdout may be a log file.
        eprintln!("API key, shown this once: {}", key.text);
        eprintln!("it is kept in {}", file.display());
    } else if settings.api_key.is_none() {
        console.say(&format!("the API key is in {}", file.display()));
    }
}

fn try_it(url: &str, model: &str, has_key: bool) -> String {
    let auth = if has_key {
        " -H \"Authorization: Bearer $MESH_LLM_API_KEY\""
    } else {
        ""
    };
    let body = json!({
        "model": model,
        "messages": [{ "role": "user", "content": "What is mesh-llm?" }],
    });
    format!(
        "\nTry it:\n  curl {url}/chat/completions{auth} -d '{body}'\nor, in another terminal:\n  mesh-llm chat\n"
    )
}

/// What an idle node waits for.
fn what_to_do(settings: &Settings) -> String {
    let join =
        "  mesh-llm join TICKET      join a mesh; `mesh-llm invite` on a member prints a ticket\n";
    if settings.node.mesh.role == mesh::Role::Client {
        return format!("\nIn another terminal:\n{join}");
    }
    format!(
        "\nIn another terminal:\n  mesh-llm load starter     serve the model inside the program\n  mesh-llm load NAME        serve a model of this machine; `mesh-llm models` lists them\n{join}or stop this and start it with --model starter, --model NAME or --join TICKET.\n"
    )
}

/// Tells the ticket of the node's own mesh.
pub(super) fn ticket(ticket: &Ticket, console: Console) {
    console.event(
        "ticket",
        json!({
            "ticket": ticket.to_string(),
            "mesh_id": ticket.terms().mesh.to_string(),
            "expires_unix_ms": ticket.terms().expires_unix_ms,
        }),
    );
    console.say("Another machine joins this one with:");
    console.say(&format!("  mesh-llm --join {ticket}\n"));
    if console.is_watched()
        && let Some(code) = qr::of_ticket(&ticket.to_string(), terminal_size::terminal_size())
    {
        console.say(&code);
    }
}
