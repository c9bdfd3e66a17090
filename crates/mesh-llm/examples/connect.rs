//! A model behind a URL: `cargo run --release --example connect [URL] [QUESTION]`.
//!
//! Works with every OpenAI-compatible server, and without the feature `solo`.

#![expect(clippy::print_stdout, reason = "an example talks to a person")]

use std::time::Duration;

use mesh_llm::{Engine, Error, Message};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next();
    let url = url.as_deref().unwrap_or("http://127.0.0.1:9337");
    let question = arguments.next();
    let question = question.as_deref().unwrap_or("What is mesh-llm?");

    let engine = Engine::connect(url)
        .silence_max(Duration::from_secs(60))
        .await?;
    println!("{url} serves {}", engine.models().await?.join(", "));
    let reply = engine
        .chat([Message::user(question)])
        .max_tokens(200)
        .reply()
        .await;
    match reply {
        Ok(reply) => println!("{}\n{:?}", reply.content, reply.usage),
        // Errors are types: what to do next need not be guessed from a text.
        Err(Error::Overloaded { retry_after_s, .. }) => {
            println!("busy; try again in {} s", retry_after_s.unwrap_or(1));
        }
        Err(error) => return Err(error),
    }
    Ok(())
}
