//! A model in this process: `cargo run --release --example solo [FILE.gguf] [QUESTION]`.
//!
//! Without a file, the model inside the library answers.

use std::io::Write;

use mesh_llm::{Engine, Event, Message};

#[tokio::main]
async fn main() -> Result<(), mesh_llm::Error> {
    let mut arguments = std::env::args().skip(1);
    let engine = match arguments.next() {
        Some(path) => Engine::solo(path).await?,
        None => Engine::starter().await?,
    };
    let question = arguments.next();
    let question = question.as_deref().unwrap_or("What is mesh-llm?");

    let mut events = engine
        .chat([Message::user(question)])
        .max_tokens(200)
        .await?;
    while let Some(event) = events.next().await {
        match event? {
            Event::Content(text) => show(&text),
            Event::Usage(usage) => show(&format!(
                "\n({} tokens in, {} out)\n",
                usage.prompt_tokens, usage.completion_tokens
            )),
            // Reasoning, tool calls, log-probabilities and the reason of the end.
            _ => {}
        }
    }
    Ok(())
}

fn show(text: &str) {
    let mut stdout = std::io::stdout();
    // An example has nobody to tell when its reader is gone.
    let _ = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
}
