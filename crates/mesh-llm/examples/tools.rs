//! A model that calls a function of ours: `cargo run --release --example tools [FILE.gguf]`.

#![expect(clippy::print_stdout, reason = "an example talks to a person")]

use mesh_llm::{Engine, Error, Message, Tool, Value, json};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let engine = match std::env::args().nth(1) {
        Some(path) => Engine::solo(path).await?,
        None => Engine::starter().await?,
    };
    let weather = Tool {
        name: "get_weather".to_owned(),
        description: Some("The weather in a city right now".to_owned()),
        parameters: Some(json!({
            "type": "object",
            "properties": { "city": { "type": "string" } },
            "required": ["city"],
        })),
    };
    let mut messages = vec![Message::user("What is the weather in Paris?")];

    let reply = engine
        .chat_with_tools(messages.clone(), [weather.clone()])
        .temperature(0.0)
        .reply()
        .await?;
    if reply.tool_calls.is_empty() {
        println!("the model answered by itself: {}", reply.content);
        return Ok(());
    }

    // The conversation goes on with the model's calls and what our functions say to them.
    let mut calling = Message::assistant(reply.content);
    calling.tool_calls.clone_from(&reply.tool_calls);
    messages.push(calling);
    for call in &reply.tool_calls {
        println!("the model calls {}({})", call.name, call.arguments);
        let arguments: Value = call.arguments.parse().unwrap_or_default();
        messages.push(Message::tool(&call.id, get_weather(&arguments)));
    }
    let answer = engine
        .chat_with_tools(messages, [weather])
        .temperature(0.0)
        .max_tokens(100)
        .text()
        .await?;
    println!("{answer}");
    Ok(())
}

fn get_weather(arguments: &Value) -> String {
    let city = arguments["city"].as_str().unwrap_or("nowhere");
    json!({ "city": city, "sky": "clear", "celsius": 21 }).to_string()
}
