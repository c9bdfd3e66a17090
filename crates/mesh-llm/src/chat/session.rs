//! The conversation at a terminal: lines in, answers streamed out.

use std::io::IsTerminal;
use std::path::Path;

use mesh_llm::{Engine, Event, Message};
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Config, Editor};

use super::{opening, request, show};
use crate::cli::ChatArguments;
use crate::failure::Failure;

const HELP: &str = "\
/help           this text
/clear          begin a new conversation
/system TEXT    set the instructions and begin a new conversation; without TEXT, remove them
/exit           end; so does Ctrl-D
Ctrl-C stops an answer. Pasted text may have several lines.";

/// Lines of history that are kept.
const HISTORY_LINES_MAX: usize = 1000;

type LineEditor = Editor<(), FileHistory>;

/// Talks until the user leaves.
pub(super) async fn run(
    engine: &Engine,
    arguments: &ChatArguments,
    home: &Path,
) -> Result<(), Failure> {
    let history = home.join("chat-history");
    let mut editor = open_editor(&history)?;
    let place = match &arguments.url {
        Some(url) => format!("at {url}"),
        None if engine.is_remote() => "on the running node".to_owned(),
        None => "in this process".to_owned(),
    };
    eprintln!("Chat with a model {place}. /help lists the commands, /exit ends.");
    let mut system = arguments.system.clone();
    let mut messages = opening(system.as_deref());
    loop {
        let line;
        (editor, line) = read_line(editor).await?;
        let line = match line {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => {
                eprintln!("/exit or Ctrl-D ends.");
                continue;
            }
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(Failure::other(format!("can't read the terminal: {error}"))),
        };
        match Input::parse(&line) {
            Input::Nothing => {}
            Input::Exit => break,
            Input::Help => eprintln!("{HELP}"),
            Input::Clear => messages = opening(system.as_deref()),
            Input::System(text) => {
                system = text;
                messages = opening(system.as_deref());
            }
            Input::Unknown(command) => eprintln!("no command {command}; /help lists them"),
            Input::Question(question) => {
                // The next start works without history; the conversation is worth more.
                let _ = editor.append_history(&history);
                messages.push(Message::user(question));
                answer(engine, arguments, &mut messages).await?;
            }
        }
    }
    Ok(())
}

fn open_editor(history: &Path) -> Result<LineEditor, Failure> {
    let unusable = |error: ReadlineError| Failure::other(format!("no terminal: {error}"));
    let config = Config::builder()
        .auto_add_history(true)
        .bracketed_paste(true)
        .max_history_size(HISTORY_LINES_MAX)
        .map_err(unusable)?
        .build();
    let mut editor = LineEditor::with_config(config).map_err(unusable)?;
    if let Some(folder) = history.parent() {
        // Without the folder there is no history, and no harm.
        let _ = std::fs::create_dir_all(folder);
    }
    let _ = editor.load_history(history);
    Ok(editor)
}

/// Reads a line on a thread that may block. The editor goes there and comes back.
async fn read_line(
    mut editor: LineEditor,
) -> Result<(LineEditor, Result<String, ReadlineError>), Failure> {
    tokio::task::spawn_blocking(move || {
        let line = editor.readline("> ");
        (editor, line)
    })
    .await
    .map_err(|error| Failure::other(format!("the line editor failed: {error}")))
}

/// Streams the answer to `messages` and adds it to them. An answer that fails or is stopped
/// before its first word takes its question with it, so that the next one is not confused.
async fn answer(
    engine: &Engine,
    arguments: &ChatArguments,
    messages: &mut Vec<Message>,
) -> Result<(), Failure> {
    let mut said = String::new();
    let outcome = tokio::select! {
        outcome = stream(engine, arguments, messages.clone(), &mut said) => outcome,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.map_err(|error| Failure::other(error.to_string()))?;
            Ok(())
        }
    };
    let outcome = show("\n").and(outcome);
    if let Err(error) = outcome {
        eprintln!("error: {error}");
    }
    if said.is_empty() {
        messages.pop();
    } else {
        messages.push(Message::assistant(said));
    }
    Ok(())
}

async fn stream(
    engine: &Engine,
    arguments: &ChatArguments,
    messages: Vec<Message>,
    said: &mut String,
) -> Result<(), mesh_llm::Error> {
    let is_terminal = std::io::stdout().is_terminal();
    let (dim, plain) = if is_terminal {
        ("\x1b[2m", "\x1b[0m")
    } else {
        ("", "")
    };
    let mut is_reasoning = false;
    let mut events = request(engine, arguments, messages).await?;
    while let Some(event) = events.next().await {
        match event? {
            Event::Reasoning(text) => {
                is_reasoning = true;
                show(&format!("{dim}{text}{plain}"))?;
            }
            Event::Content(text) => {
                if std::mem::take(&mut is_reasoning) {
                    show("\n")?;
                }
                show(&text)?;
                said.push_str(&text);
            }
            Event::ToolCall(_) | Event::Logprobs(_) | Event::Finished(_) | Event::Usage(_) => {}
        }
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum Input {
    Nothing,
    Exit,
    Help,
    Clear,
    System(Option<String>),
    Unknown(String),
    Question(String),
}

impl Input {
    fn parse(line: &str) -> Self {
        let line = line.trim();
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        match word {
            "" => Self::Nothing,
            "/exit" | "/quit" => Self::Exit,
            "/help" => Self::Help,
            "/clear" => Self::Clear,
            "/system" => Self::System((!rest.is_empty()).then(|| rest.to_owned())),
            // A path such as /etc/hosts may begin a question.
            command
                if command.starts_with('/') && !command[1..].contains('/') && rest.is_empty() =>
            {
                Self::Unknown(command.to_owned())
            }
            _ => Self::Question(line.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Input;

    #[test]
    fn commands_are_told_from_questions() {
        let question = |text: &str| Input::Question(text.to_owned());
        for (line, expected) in [
            ("  ", Input::Nothing),
            ("/exit", Input::Exit),
            (" /quit ", Input::Exit),
            ("/help", Input::Help),
            ("/clear", Input::Clear),
            ("/system", Input::System(None)),
            (
                "/system Be  brief.",
                Input::System(Some("Be  brief.".into())),
            ),
            ("/sytem", Input::Unknown("/sytem".into())),
            ("/etc/hosts", question("/etc/hosts")),
            ("/etc is what?", question("/etc is what?")),
            (" What?\nAnd why? ", question("What?\nAnd why?")),
        ] {
            assert_eq!(Input::parse(line), expected, "{line:?}");
        }
    }
}
