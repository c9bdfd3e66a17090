//! Calls that a model may make: free text stays free, and what it begins as a call becomes one.

use engine::text::{ChatFormat, Constraint, ConstraintState, OutputParser, Piece};
use engine::{Chat, FinishReason, Input, Message, Request, TokenId, Tool, ToolChoice};
use serde_json::{Value, json};

use crate::constraint::{Model, Random, parsed, tools};

/// Random tokens before a walk heads for the end of its call.
const FREE_TOKENS: usize = 40;
/// No call of these tests needs more.
const TOKENS_MAX: usize = 6000;

/// What opens calls in templates whose syntax a grammar describes.
const MARKERS: [&str; 7] = [
    "<tool_call>",
    "<|python_tag|>",
    "[TOOL_CALLS]",
    "functools[",
    "<TOOLCALL>",
    "<tool_calls>",
    "<|tool_call|>",
];

fn chat(parallel: bool) -> Chat {
    Chat {
        messages: vec![Message::user("Hello")],
        tools: tools(),
        parallel_tool_calls: parallel,
        ..Chat::default()
    }
}

/// The constraint and the parser for `chat` with a template that names `markers` and ends in `end`.
fn prepare(
    model: &Model,
    markers: &str,
    end: &str,
    chat: &Chat,
) -> (Option<Constraint>, OutputParser) {
    let template = format!(
        "{{% for m in messages %}}{{{{ m.content }}}}{{% endfor %}}\
         {{% if tools %}}{{{{ tools | tojson }}}}{markers}{{% endif %}}{end}"
    );
    let format = ChatFormat::new(Some(&template), "", "", model.vocabulary.clone()).unwrap();
    let request = Request::new("", Input::Chat(chat.clone()));
    let prepared = format.prepare(&request).unwrap();
    (prepared.constraint, prepared.parser)
}

/// One answer as it grows.
struct Answer<'a> {
    model: &'a Model,
    state: ConstraintState,
    parser: OutputParser,
    text: Vec<u8>,
}

impl<'a> Answer<'a> {
    fn new(model: &'a Model, markers: &str, end: &str, chat: &Chat) -> Self {
        let (constraint, parser) = prepare(model, markers, end, chat);
        Self {
            model,
            state: constraint.unwrap().start(),
            parser,
            text: Vec::new(),
        }
    }

    fn accept(&mut self, token: TokenId) {
        self.state.accept(token).unwrap();
        self.text
            .extend_from_slice(&self.model.bytes[token as usize]);
    }

    /// Whether no token is forbidden.
    fn is_free(&mut self) -> bool {
        self.model.allowed(&mut self.state).len() == self.model.bytes.len()
    }

    /// Writes `text`, byte by byte, and checks whether the answer is free before each.
    fn write(&mut self, text: &str, free: bool) {
        for byte in text.bytes() {
            assert_eq!(self.is_free(), free, "{text:?}, before {:?}", byte as char);
            assert!(self.state.allows(TokenId::from(byte)), "{text:?}");
            self.accept(TokenId::from(byte));
        }
    }

    /// Writes a marker: its token if there is one, else its text.
    fn open(&mut self, marker: &str) {
        match self.model.vocabulary.special_token(marker) {
            Some(token) => {
                assert!(self.is_free());
                self.accept(token);
            }
            None => self.write(marker, true),
        }
    }

    /// Writes a call at random, to its end.
    fn walk(&mut self, random: &mut Random) {
        for step in 0..TOKENS_MAX {
            let is_over = self.state.is_accepting();
            assert_eq!(is_over, self.is_free());
            if is_over {
                return;
            }
            let allowed = self.model.allowed(&mut self.state);
            assert!(!allowed.contains(&self.model.end));
            let token = if step < FREE_TOKENS {
                allowed[random.below(allowed.len())]
            } else {
                self.model.closing(&allowed, random)
            };
            assert!(self.state.allows(token));
            self.accept(token);
        }
        panic!("no end: {}", String::from_utf8_lossy(&self.text));
    }

    /// Content and calls; those must be valid.
    fn read(mut self) -> (String, Vec<(String, String)>) {
        let text = String::from_utf8(self.text).unwrap();
        let pieces = [
            self.parser.push(&text),
            self.parser.finish(FinishReason::Stop),
        ]
        .concat();
        let mut content = String::new();
        let mut calls: Vec<(String, String)> = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Content(text) => content += &text,
                Piece::Reasoning(_) => {}
                Piece::ToolCall(delta) => {
                    calls.extend(delta.name.map(|name| (name, String::new())));
                    calls.last_mut().unwrap().1 += &delta.arguments;
                }
            }
        }
        for (name, arguments) in &calls {
            let tool = tools().into_iter().find(|tool| tool.name == *name);
            let tool = tool.unwrap_or_else(|| panic!("{text}: {name}"));
            let schema = tool.parameters.unwrap_or(json!({}));
            if let Some(value) = parsed(arguments, &text) {
                assert!(value.is_object(), "{text}");
                assert!(jsonschema::is_valid(&schema, &value), "{text}");
            }
        }
        (content, calls)
    }
}

#[test]
fn text_without_a_call_stays_free() {
    let model = Model::new();
    let mut answer = Answer::new(&model, "<tool_call>", "", &chat(true));
    answer.write("The tag <tool_cal>, {\"name\": 7}\n", true);
    let other = model.vocabulary.special_token("<|im_start|>").unwrap();
    answer.accept(other);
    answer.write("</tool_call> ü", true);
    assert!(answer.state.is_accepting() && !answer.state.is_finished());
    answer.state.accept(model.end).unwrap();
    assert!(answer.state.is_finished());
}

#[test]
fn what_begins_as_a_call_becomes_one() {
    let model = Model::new();
    for marker in MARKERS {
        for seed in 0..8 {
            let mut random = Random(seed);
            let mut answer = Answer::new(&model, marker, "", &chat(true));
            answer.write("Well. ", true);
            answer.open(marker);
            assert!(!answer.is_free(), "{marker}");
            answer.walk(&mut random);
            let (content, calls) = answer.read();
            assert_eq!(content, "Well.", "{marker}");
            assert!(!calls.is_empty(), "{marker}");
        }
    }
}

#[test]
fn text_and_further_calls_may_follow() {
    let model = Model::new();
    for seed in 0..8 {
        let mut random = Random(seed);
        let mut answer = Answer::new(&model, "<tool_call>", "", &chat(true));
        for _ in 0..3 {
            answer.open("<tool_call>");
            answer.walk(&mut random);
            assert!(!answer.state.is_finished());
            answer.write("\n", true);
        }
        answer.write("Done", true);
        let (content, calls) = answer.read();
        assert_eq!((content.as_str(), calls.len()), ("Done", 3));
    }
}

#[test]
fn one_call_ends_an_answer_without_parallel_calls() {
    let model = Model::new();
    for marker in MARKERS {
        let mut answer = Answer::new(&model, marker, "", &chat(false));
        answer.open(marker);
        assert!(!answer.state.is_finished());
        answer.walk(&mut Random(3));
        assert!(answer.state.is_finished(), "{marker}");
        assert_eq!(answer.read().1.len(), 1, "{marker}");
    }
}

#[test]
fn newer_models_of_mistral_write_names_without_quotes() {
    let model = Model::new();
    let mut answer = Answer::new(&model, "[TOOL_CALLS]", "", &chat(true));
    answer.open("[TOOL_CALLS]");
    answer.write(
        "get_weather[ARGS]{\"city\": \"Bonn\", \"unit\": \"celsius\"}",
        false,
    );
    answer.open("[TOOL_CALLS]");
    answer.write("now{}", false);
    assert!(answer.is_free());
    let names: Vec<_> = answer.read().1.into_iter().map(|call| call.0).collect();
    assert_eq!(names, ["get_weather", "now"]);
}

#[test]
fn reasoning_may_mention_calls() {
    let model = Model::new();
    let mut answer = Answer::new(&model, "<tool_call>", "", &chat(true));
    answer.write("<think>I need a ", true);
    answer.open("<tool_call>");
    answer.write("soon</think>\n", true);
    answer.open("<tool_call>");
    answer.walk(&mut Random(1));
    assert_eq!(answer.read().1.len(), 1);
    // The prompt may have opened it.
    let mut answer = Answer::new(&model, "<tool_call>", "<think>", &chat(true));
    answer.open("<tool_call>");
    answer.write("{x}</think>", true);
    answer.open("<tool_call>");
    answer.walk(&mut Random(2));
    assert_eq!(answer.read().1.len(), 1);
}

#[test]
fn a_marker_may_come_as_text_in_any_tokens() {
    let model = Model::new();
    // Spelled out although there is a token, and with a line break in the token that ends it.
    let mut answer = Answer::new(&model, "<tool_call>", "", &chat(true));
    answer.write("<tool_call", true);
    let end = model
        .bytes
        .iter()
        .position(|bytes| bytes == b">\n")
        .unwrap();
    answer.accept(end as TokenId);
    assert!(!answer.is_free());
    answer.write("{\"name\": \"now\", \"arguments\": {}}", false);
    answer.walk(&mut Random(1));
    assert_eq!(answer.read().1, [("now".to_owned(), "{}".to_owned())]);
}

/// Tokens from elsewhere lead to the same state, whatever they are.
#[test]
fn nothing_is_refused() {
    let model = Model::new();
    let mut answer = Answer::new(&model, "<tool_call>", "", &chat(true));
    answer.open("<tool_call>");
    assert!(!answer.state.allows(TokenId::from(b'x')));
    answer.accept(TokenId::from(b'x'));
    assert!(answer.is_free());
    answer.open("<tool_call>");
    assert!(
        answer.is_free(),
        "an answer that can't be followed stays free"
    );
    // A bias that leaves none of the tokens that fit.
    let mut answer = Answer::new(&model, "<tool_call>", "", &chat(true));
    answer.open("<tool_call>");
    let mut logits = vec![f32::NEG_INFINITY; model.bytes.len()];
    logits[usize::from(b'x')] = 1.0;
    let before = logits.clone();
    answer.state.mask(&mut logits).unwrap();
    assert_eq!(logits, before);
    assert!(answer.is_free());
}

#[test]
fn what_cannot_be_enforced_is_no_error() {
    let model = Model::new();
    let constraint = |markers: &str, chat: &Chat| prepare(&model, markers, "", chat).0;
    assert!(constraint("<tool_call>", &chat(true)).is_some());
    let mut none = chat(true);
    none.tool_choice = ToolChoice::None;
    assert!(constraint("<tool_call>", &none).is_none());
    let with_tools = |tools: Vec<Tool>| Chat {
        tools,
        ..chat(true)
    };
    let tool = |name: String, schema: Value| Tool {
        name,
        description: None,
        parameters: Some(schema),
    };
    let long = json!({"properties": {"a": {"type": "string", "minLength": 1_000_000}}});
    let long = with_tools(vec![tool("long".into(), long)]);
    assert!(constraint("<tool_call>", &long).is_none());
    let missing = json!({"$ref": "#/$defs/missing"});
    let missing = with_tools(vec![tool("missing".into(), missing)]);
    assert!(constraint("<tool_call>", &missing).is_none());
    let many = (0..600).map(|index| tool(format!("tool_{index}"), json!({})));
    let many = with_tools(many.collect());
    assert!(constraint("<tool_call>", &many).is_none());
    // Blocks are read by parsers of their own; channels have no marker that only calls have.
    for markers in [
        "<function= <parameter=",
        "<arg_key>",
        "<|channel|><|message|>",
    ] {
        assert!(constraint(markers, &chat(true)).is_none(), "{markers}");
    }
}
