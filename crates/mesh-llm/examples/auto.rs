//! The node on this machine if one runs, else a model of our own:
//! `cargo run --release --example auto FILE.gguf [URL]`.

#![expect(clippy::print_stdout, reason = "an example talks to a person")]

use mesh_llm::{Engine, Error, Message};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let Some(path) = arguments.next() else {
        println!("usage: auto FILE.gguf [URL]");
        return Ok(());
    };
    let mut engine = Engine::auto(path);
    if let Some(url) = arguments.next() {
        // Another place than this machine's port 9337.
        engine = engine.at(Engine::connect(url));
    }
    let engine = engine.await?;
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
