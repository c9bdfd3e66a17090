//! Costs of the text side: a rendered prompt, a constraint's mask, a parsed token.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "../tests/text/vocabulary.rs"]
mod vocabulary;

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use engine::text::{ChatTemplate, Constraint, Dialect, OutputParser, Start, Vocabulary};
use engine::{Chat, FinishReason, Format, Message, Tool, ToolChoice};
use serde_json::json;

/// As large as the vocabulary of current models.
const TOKENS: usize = 150_000;
const TEMPLATE: &str = include_str!("../../../tools/starter/template.jinja");

fn chat(turns: usize) -> Chat {
    let mut messages = vec![Message::system("You are a helpful assistant.")];
    for turn in 0..turns {
        messages.push(Message::user(format!(
            "Question {turn}: what is the weather in Paris?"
        )));
        messages.push(Message::assistant(
            "It is sunny and 21 degrees warm. ".repeat(8),
        ));
    }
    messages.push(Message::user("And tomorrow?"));
    let tool = |name: &str| Tool {
        name: name.into(),
        description: Some("Tells the weather of a day.".into()),
        parameters: Some(json!({
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "day": {"type": "string", "enum": ["today", "tomorrow"]},
                "details": {"type": "array", "items": {"type": "string"}},
            },
            "required": ["city", "day"],
        })),
    };
    Chat {
        messages,
        tools: vec![tool("weather"), tool("forecast")],
        tool_choice: ToolChoice::Auto,
        parallel_tool_calls: true,
        ..Chat::default()
    }
}

fn template(criterion: &mut Criterion) {
    let template = ChatTemplate::new(TEMPLATE, "", "<|im_end|>").unwrap();
    for turns in [1, 50] {
        let chat = chat(turns);
        criterion.bench_function(
            &format!("template/render {} messages", chat.messages.len()),
            |b| {
                b.iter(|| template.render(black_box(&chat)).unwrap());
            },
        );
    }
    criterion.bench_function("template/compile and probe", |b| {
        b.iter(|| ChatTemplate::new(black_box(TEMPLATE), "", "<|im_end|>").unwrap());
    });
}

fn constraint(vocabulary: &Vocabulary, format: &Format, chat: &Chat) -> Constraint {
    Constraint::for_request(format, chat, Dialect::default(), Start::Content, vocabulary)
        .unwrap()
        .unwrap()
}

/// Masks and accepts along `text`, byte by byte: tokens 0 to 255 are the bytes.
fn walk(constraint: &Constraint, text: &str, logits: &mut [f32]) {
    let mut state = constraint.start();
    for byte in text.bytes() {
        logits.fill(0.0);
        state.mask(logits).unwrap();
        state.accept(i32::from(byte)).unwrap();
    }
}

fn mask(criterion: &mut Criterion) {
    let vocabulary = vocabulary::vocabulary(TOKENS);
    let mut logits = vec![0.0; vocabulary.len()];
    let free = Chat::default();
    let mut forced = chat(1);
    forced.tool_choice = ToolChoice::Required;
    let schema = json!({
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": false,
    });
    let json_text = r#"{"name": "Ada Lovelace", "age": 36}"#;
    let list = "root ::= (\"- \" [^\\n]+ \"\\n\")+".to_owned();
    let arithmetic = "root ::= (term \"\\n\")+\nterm ::= factor ([-+*/] factor)*\nfactor ::= [0-9]+ | \"(\" term \")\"".to_owned();
    let cases = [
        ("json object", Format::JsonObject, &free, json_text),
        ("json schema", Format::JsonSchema(schema), &free, json_text),
        (
            "gbnf list",
            Format::Grammar(list),
            &free,
            "- one thing\n- another thing\n",
        ),
        (
            "gbnf arithmetic",
            Format::Grammar(arithmetic),
            &free,
            "1+2*(30/4)\n(5-6)\n",
        ),
    ];
    for (name, format, chat, text) in cases {
        let constraint = constraint(&vocabulary, &format, chat);
        criterion.bench_function(
            &format!("mask/{name}, {} tokens of text", text.len()),
            |b| {
                b.iter(|| walk(&constraint, text, &mut logits));
            },
        );
    }
    criterion.bench_function("mask/first of a required call", |b| {
        b.iter(|| {
            let constraint = constraint(&vocabulary, &Format::Text, &forced);
            logits.fill(0.0);
            constraint.start().mask(&mut logits).unwrap();
        });
    });
}

fn parser(criterion: &mut Criterion) {
    let chat = chat(1);
    let content = "Some words of an answer. ".repeat(200);
    let call = format!(
        "<think>\nI need the weather.\n</think>\n\n<tool_call>\n{{\"name\": \"weather\", \"arguments\": {{\"city\": \"{}\", \"day\": \"today\"}}}}\n</tool_call>",
        "Paris ".repeat(100)
    );
    for (name, text) in [("content", &content), ("call", &call)] {
        let pieces: Vec<String> = text
            .as_bytes()
            .chunks(4)
            .map(|piece| String::from_utf8_lossy(piece).into_owned())
            .collect();
        criterion.bench_function(&format!("parser/{} tokens of {name}", pieces.len()), |b| {
            b.iter_batched(
                || OutputParser::new(Dialect::default(), &chat, Start::Content),
                |mut parser| {
                    for piece in &pieces {
                        black_box(parser.push(piece));
                    }
                    black_box(parser.finish(FinishReason::Stop));
                },
                BatchSize::SmallInput,
            );
        });
    }
}

criterion_group!(benches, template, mask, parser);
criterion_main!(benches);
