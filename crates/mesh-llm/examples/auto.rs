//! The node on this machine if one runs, else a model of our own:
//! `cargo run --release --example auto FILE.gguf`.

#![expect(clippy::print_stdout, reason = "an example talks to a person")]

use mesh_llm::{Engine, Error, Message};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let Some(path) = std::env::args().nth(1) else {
        println!("usage: auto FILE.gguf");
        return Ok(());
    };
    let engine = Engine::auto(path).await?;
    let place = if engine.is_remote() {
        "the running node"
    } else {
        "this process"
    };
    let answer = engine
        .chat([Message::user("What can you do?")])
        .max_tokens(100)
        .text()
        .await?;
    println!("{place} answers: {answer}");
    Ok(())
}
