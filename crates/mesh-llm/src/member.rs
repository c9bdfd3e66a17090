//! `mesh-llm join` and `leave`: the running node's membership.

use api::management::{JoinRequest, Joined};
use reqwest::Method;
use serde_json::json;

use crate::console::Console;
use crate::control::{Control, ControlError};
use crate::failure::Failure;
use crate::serve;
use crate::settings::{ConsolePort, Settings, Way, read_ticket};

/// Lets the running node join; if none runs, starts one that does.
pub(crate) async fn join(mut settings: Settings, text: &str) -> Result<(), Failure> {
    let ticket = read_ticket(text)?;
    let console = Console::new(settings.log_format);
    // A node that is to be started may have its console off, or at any port.
    let joined = match settings.console {
        ConsolePort::Off | ConsolePort::Asked(0) => Err(ControlError::NobodyThere(0)),
        _ => {
            let request = JoinRequest {
                ticket: ticket.to_string(),
            };
            Control::new(&settings)?.post("/api/join", &request).await
        }
    };
    match joined {
        Ok(Joined { mesh_id }) => {
            console.say(&format!(
                "the running node is in mesh {} now; `mesh-llm status` shows it",
                mesh_id.get(..10).unwrap_or(&mesh_id)
            ));
            console.event("joined", json!({ "mesh_id": mesh_id }));
            Ok(())
        }
        Err(ControlError::NobodyThere(_)) => {
            console.say("no node runs on this machine: starting one that joins");
            settings.way = Way::Join(Box::new(ticket));
            serve::run(settings).await
        }
        Err(ControlError::Failed(failure)) => Err(failure),
    }
}

/// Lets the running node leave.
pub(crate) async fn leave(settings: &Settings) -> Result<(), Failure> {
    let control = Control::new(settings)?;
    control.order(Method::POST, "/api/leave").await?;
    let console = Console::new(settings.log_format);
    console.say("the running node left its mesh; its own models go on");
    console.event("left", json!({}));
    Ok(())
}
