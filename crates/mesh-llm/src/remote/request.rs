//! Requests in OpenAI's JSON form. Only what the caller set is sent.

use ::engine::Format;
use serde_json::{Map, Value, json};

use crate::generation::{Input, Options};
use crate::{Message, Role, Tool, ToolCall, ToolChoice};

/// Path below `/v1/` and body of a generation.
pub(crate) fn body(model: &str, input: &Input, options: &Options) -> (&'static str, Value) {
    let mut body = Map::new();
    body.insert("model".into(), model.into());
    body.insert("stream".into(), true.into());
    body.insert("stream_options".into(), json!({ "include_usage": true }));
    add_options(&mut body, options);
    let path = match input {
        Input::Text(prompt) => {
            body.insert("prompt".into(), prompt.as_str().into());
            if let Some(top) = options.logprobs {
                body.insert("logprobs".into(), top.into());
            }
            "completions"
        }
        Input::Chat { messages, tools } => {
            body.insert("messages".into(), messages.iter().map(message).collect());
            if let Some(top) = options.logprobs {
                body.insert("logprobs".into(), true.into());
                body.insert("top_logprobs".into(), top.into());
            }
            if !tools.is_empty() {
                body.insert("tools".into(), tools.iter().map(tool).collect());
                add_tool_options(&mut body, options);
            }
            "chat/completions"
        }
    };
    (path, Value::Object(body))
}

fn add_options(body: &mut Map<String, Value>, options: &Options) {
    let mut add = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            body.insert(key.to_owned(), value);
        }
    };
    for (name, value) in options.numbers() {
        add(name, value.map(number));
    }
    add("top_k", options.top_k.map(Value::from));
    add("seed", options.seed.map(Value::from));
    add("max_tokens", options.max_tokens.map(Value::from));
    add("ignore_eos", options.ignore_eos.map(Value::from));
    add("n", options.n.map(Value::from));
    add(
        "stop",
        (!options.stop.is_empty()).then(|| json!(options.stop)),
    );
    let kwargs = &options.template_kwargs;
    add(
        "chat_template_kwargs",
        (!kwargs.is_empty()).then(|| json!(kwargs)),
    );
    match &options.format {
        None | Some(Format::Text) => {}
        Some(Format::JsonObject) => {
            add("response_format", Some(json!({ "type": "json_object" })));
        }
        Some(Format::JsonSchema(schema)) => {
            let named = json!({ "name": "answer", "schema": schema, "strict": true });
            let format = json!({ "type": "json_schema", "json_schema": named });
            add("response_format", Some(format));
        }
        Some(Format::Grammar(gbnf)) => add("grammar", Some(gbnf.as_str().into())),
    }
}

fn add_tool_options(body: &mut Map<String, Value>, options: &Options) {
    let choice = match &options.tool_choice {
        None => None,
        Some(ToolChoice::Auto) => Some(json!("auto")),
        Some(ToolChoice::None) => Some(json!("none")),
        Some(ToolChoice::Required) => Some(json!("required")),
        Some(ToolChoice::Named(name)) => {
            Some(json!({ "type": "function", "function": { "name": name } }))
        }
    };
    if let Some(choice) = choice {
        body.insert("tool_choice".into(), choice);
    }
    if let Some(parallel) = options.parallel_tool_calls {
        body.insert("parallel_tool_calls".into(), parallel.into());
    }
}

/// A number as a person wrote it: 0.8, not the nearest f32 in f64 digits.
fn number(value: f32) -> Value {
    value
        .to_string()
        .parse::<f64>()
        .map_or(Value::Null, Value::from)
}

fn message(message: &Message) -> Value {
    let mut body = Map::new();
    let role = match message.role {
        Role::System => "system",
        Role::Developer => "developer",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    };
    body.insert("role".into(), role.into());
    // OpenAI wants null, not an empty text, beside tool calls.
    let content = if message.content.is_empty() && !message.tool_calls.is_empty() {
        Value::Null
    } else {
        message.content.as_str().into()
    };
    body.insert("content".into(), content);
    let mut add = |key: &str, value: &Option<String>| {
        if let Some(value) = value {
            body.insert(key.to_owned(), value.as_str().into());
        }
    };
    add("name", &message.name);
    add("reasoning_content", &message.reasoning);
    add("tool_call_id", &message.tool_call_id);
    if !message.tool_calls.is_empty() {
        let calls = message.tool_calls.iter().map(tool_call).collect();
        body.insert("tool_calls".into(), calls);
    }
    Value::Object(body)
}

fn tool_call(call: &ToolCall) -> Value {
    json!({
        "id": call.id,
        "type": "function",
        "function": { "name": call.name, "arguments": call.arguments },
    })
}

fn tool(tool: &Tool) -> Value {
    let mut function = Map::new();
    function.insert("name".into(), tool.name.as_str().into());
    if let Some(description) = &tool.description {
        function.insert("description".into(), description.as_str().into());
    }
    if let Some(parameters) = &tool.parameters {
        function.insert("parameters".into(), parameters.clone());
    }
    json!({ "type": "function", "function": function })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::body;
    use crate::generation::{Input, Options};
    use crate::{Message, Tool, ToolCall, ToolChoice};

    #[test]
    fn only_what_is_set_is_sent() {
        let (path, body) = body("m", &Input::Text("Once".into()), &Options::default());
        let expected = json!({
            "model": "m",
            "stream": true,
            "stream_options": { "include_usage": true },
            "prompt": "Once",
        });
        assert_eq!((path, body), ("completions", expected));
    }

    #[test]
    fn a_conversation_with_tools() {
        let mut call = Message::assistant("");
        call.tool_calls = vec![ToolCall {
            id: "1".into(),
            name: "time".into(),
            arguments: "{}".into(),
        }];
        let input = Input::Chat {
            messages: vec![Message::user("When?"), call, Message::tool("1", "noon")],
            tools: vec![Tool {
                name: "time".into(),
                description: None,
                parameters: Some(json!({ "type": "object" })),
            }],
        };
        let options = Options {
            temperature: Some(0.8),
            tool_choice: Some(ToolChoice::Named("time".into())),
            stop: vec!["x".into()],
            n: Some(2),
            logprobs: Some(3),
            ignore_eos: Some(true),
            ..Options::default()
        };
        let (path, body) = body("m", &input, &options);
        let function = json!({ "name": "time", "arguments": "{}" });
        let calls = json!([{ "id": "1", "type": "function", "function": function }]);
        let expected = json!({
            "model": "m",
            "stream": true,
            "stream_options": { "include_usage": true },
            "temperature": 0.8,
            "stop": ["x"],
            "n": 2,
            "logprobs": true,
            "top_logprobs": 3,
            "ignore_eos": true,
            "messages": [
                { "role": "user", "content": "When?" },
                { "role": "assistant", "content": null, "tool_calls": calls },
                { "role": "tool", "content": "noon", "tool_call_id": "1" },
            ],
            "tools": [{
                "type": "function",
                "function": { "name": "time", "parameters": { "type": "object" } },
            }],
            "tool_choice": { "type": "function", "function": { "name": "time" } },
        });
        assert_eq!((path, body), ("chat/completions", expected));
    }
}
