//! `mesh-llm rotate-key`: a new key for this machine's node.

use mesh::identity::StateDir;
use serde_json::json;

use crate::console::Console;
use crate::failure::Failure;
use crate::lock;
use crate::settings::Settings;

/// Replaces the key, unless a node uses it.
pub(crate) fn run(settings: &Settings) -> Result<(), Failure> {
    let home = settings.home.display();
    // Held to the end, so that no node starts with the old key meanwhile.
    let _lock = lock::take(&settings.home)?.ok_or_else(|| {
        Failure::other(format!(
            "a node runs with the key in {home}; hint: stop it first, with Ctrl-C"
        ))
    })?;
    let rotation = StateDir::new(&settings.home)
        .rotate_key()
        .map_err(|error| Failure::other(error.to_string()))?;
    let console = Console::new(settings.log_format);
    console.say(&format!(
        "this machine is node {} now",
        rotation.after.short()
    ));
    if let Some(before) = rotation.before {
        console.say(&format!(
            "it was {}, whose memberships are worth nothing any more: join again with new tickets.\n\
             On a member, revoke the ticket that it came by: whoever copied the old key is out then.",
            before.short()
        ));
    }
    console.event(
        "key_rotated",
        json!({
            "node_id": rotation.after.to_string(),
            "old_node_id": rotation.before.map(|before| before.to_string()),
        }),
    );
    Ok(())
}
