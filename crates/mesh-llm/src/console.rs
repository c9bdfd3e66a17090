//! What the user sees: sentences on stderr for a person, one JSON object a line on stdout for a
//! program. Nothing else writes to the two while serving.

use std::io::{IsTerminal, Write};

use serde_json::{Map, Value, json};

use crate::settings::LogFormat;

/// Where messages go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Console {
    format: LogFormat,
}

impl Console {
    pub(crate) fn new(format: LogFormat) -> Self {
        Self { format }
    }

    pub(crate) fn is_json(self) -> bool {
        self.format == LogFormat::Json
    }

    /// Whether a person watches, so that progress may be drawn.
    pub(crate) fn is_watched(self) -> bool {
        !self.is_json() && std::io::stderr().is_terminal()
    }

    /// Says something to a person; a program is told by [`Console::event`].
    pub(crate) fn say(self, text: &str) {
        if !self.is_json() {
            write_line(&mut std::io::stderr().lock(), text);
        }
    }

    /// Tells a program what happened. `fields` must be an object.
    pub(crate) fn event(self, name: &str, fields: Value) {
        if self.is_json() {
            print_event(name, fields);
        }
    }

    /// Tells why the program ends. A hint gets a line of its own.
    pub(crate) fn error(self, code: &str, message: &str) {
        self.trouble("error", code, message);
    }

    /// Tells what is not as it should be, while the program goes on.
    pub(crate) fn warn(self, code: &str, message: &str) {
        self.trouble("warning", code, message);
    }

    fn trouble(self, kind: &str, code: &str, message: &str) {
        let parts = message
            .split_once("; hint: ")
            .or_else(|| message.split_once("\nhint: "));
        let (message, hint) = match parts {
            Some((message, hint)) => (message, Some(hint)),
            None => (message, None),
        };
        if self.is_json() {
            print_event(
                kind,
                json!({ "code": code, "message": message, "hint": hint }),
            );
            return;
        }
        let mut stderr = std::io::stderr().lock();
        write_line(&mut stderr, &format!("{kind}: {message}"));
        if let Some(hint) = hint {
            write_line(&mut stderr, &format!("hint: {hint}"));
        }
    }
}

/// Prints one event as a line of JSON.
pub(crate) fn print_event(name: &str, fields: Value) {
    let mut event = Map::new();
    event.insert("event".to_owned(), name.into());
    if let Value::Object(fields) = fields {
        event.extend(fields);
    }
    write_line(
        &mut std::io::stdout().lock(),
        &Value::Object(event).to_string(),
    );
}

/// Writes a line at once. If nobody reads it, there is nobody to tell.
fn write_line(stream: &mut impl Write, text: &str) {
    let _ = writeln!(stream, "{text}").and_then(|()| stream.flush());
}
