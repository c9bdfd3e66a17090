//! `mesh-llm status`: the running node, its mesh and what it does, in the terminal.

mod render;

use std::io::IsTerminal;
use std::time::{SystemTime, UNIX_EPOCH};

use api::management::{Event, Status};
use futures::StreamExt;
use serde_json::{Value, json};

use crate::cli::{StatusArguments, print};
use crate::control::Control;
use crate::failure::Failure;
use crate::settings::Settings;

/// Clears the terminal and what scrolled out of it, and goes to its corner.
const CLEAR: &str = "\x1b[2J\x1b[3J\x1b[H";

/// Shows the state, once or at each change.
pub(crate) async fn run(settings: &Settings, arguments: &StatusArguments) -> Result<(), Failure> {
    let control = Control::new(settings)?;
    if arguments.watch {
        return watch(&control, arguments.json).await;
    }
    if arguments.json {
        // As it came: fields of a newer version too.
        let status: Value = control.get("/api/status").await?;
        return print(format!("{status}\n").as_bytes());
    }
    let status: Status = control.get("/api/status").await?;
    print(render::status(&status, now_unix_s()).as_bytes())
}

async fn watch(control: &Control, json: bool) -> Result<(), Failure> {
    let mut events = control.events().await?;
    let mut shown: Option<Status> = None;
    let is_terminal = std::io::stdout().is_terminal();
    while let Some(event) = events.next().await {
        let event = event?;
        if json {
            print(line(&event)?.as_bytes())?;
            continue;
        }
        match (event, &mut shown) {
            (Event::Snapshot(status), _) => shown = Some(status),
            (Event::Change(change), Some(status)) => status.apply(change),
            // The snapshot comes first.
            (Event::Change(_), None) => continue,
        }
        if let Some(status) = &shown {
            let start = if is_terminal { CLEAR } else { "" };
            let text = render::status(status, now_unix_s());
            print(format!("{start}{text}\n").as_bytes())?;
        }
    }
    if json {
        return Ok(());
    }
    print(b"the node has stopped\n")
}

/// An event as a line of JSON.
fn line(event: &Event) -> Result<String, Failure> {
    let unwritable = |error: serde_json::Error| Failure::other(error.to_string());
    let (name, data) = event.write().map_err(unwritable)?;
    let data: Value = serde_json::from_str(&data).map_err(unwritable)?;
    Ok(format!("{}\n", json!({ "event": name, "data": data })))
}

fn now_unix_s() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}
