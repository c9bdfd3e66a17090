//! Constraints on answers: whatever a model prefers, what it writes fits.
//!
//! A random model walks through each constraint until the answer ends. Two thousand tokens in, it
//! starts to close what is open, as any answer must end some time.

use engine::text::{
    Constraint, ConstraintState, Dialect, OutputParser, Piece, Start, Vocabulary, constraint,
};
use engine::{Chat, Error, FinishReason, Format, TokenId, Tool, ToolChoice};
use serde_json::{Value, json};

use crate::vocabulary::{END, token_bytes, vocabulary};

/// Random tokens before the walk heads for the end.
const FREE_TOKENS: usize = 60;
/// No answer of these tests needs more.
const TOKENS_MAX: usize = 6000;

/// Pseudo-random numbers (SplitMix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) % end as u64) as usize
    }
}

/// A vocabulary and the bytes of its tokens.
pub(crate) struct Model {
    pub(crate) vocabulary: Vocabulary,
    pub(crate) bytes: Vec<Vec<u8>>,
    pub(crate) end: TokenId,
}

impl Model {
    pub(crate) fn new() -> Self {
        let bytes = token_bytes(700);
        let vocabulary = vocabulary(700);
        let end = vocabulary.special_token(END).unwrap();
        Self {
            vocabulary,
            bytes,
            end,
        }
    }

    /// Tokens that a mask leaves.
    pub(crate) fn allowed(&self, state: &mut ConstraintState) -> Vec<TokenId> {
        let mut logits = vec![0.0; self.bytes.len()];
        state.mask(&mut logits).unwrap();
        (0..)
            .zip(&logits)
            .filter(|(_, logit)| **logit == 0.0)
            .map(|(token, _)| token)
            .collect()
    }

    /// Checks that mask, `allows`, `accept` and `rollback` agree.
    fn check_step(&self, state: &mut ConstraintState, allowed: &[TokenId], random: &mut Random) {
        for _ in 0..6 {
            let token = random.below(self.bytes.len()) as TokenId;
            assert_eq!(
                state.allows(token),
                allowed.contains(&token),
                "token {token}"
            );
        }
        let token = allowed[random.below(allowed.len())];
        assert!(state.allows(token));
        if state.is_finished() {
            return;
        }
        let before = format!("{state:?}");
        state.accept(token).unwrap();
        state.rollback(1).unwrap();
        assert_eq!(format!("{state:?}"), before);
        assert_eq!(self.allowed(state), allowed, "after taking {token} back");
    }

    /// Walks to the end and returns the text.
    pub(crate) fn walk(&self, constraint: &Constraint, seed: u64) -> String {
        let mut random = Random(seed);
        let mut state = constraint.start();
        let mut text = Vec::new();
        for step in 0..TOKENS_MAX {
            let allowed = self.allowed(&mut state);
            assert!(
                !allowed.is_empty(),
                "nothing may follow {:?}",
                String::from_utf8_lossy(&text)
            );
            assert_eq!(allowed.contains(&self.end), state.is_accepting());
            if step % 7 == 3 {
                self.check_step(&mut state, &allowed, &mut random);
            }
            let token = if step < FREE_TOKENS {
                allowed[random.below(allowed.len())]
            } else {
                self.closing(&allowed, &mut random)
            };
            state.accept(token).unwrap();
            if token == self.end {
                assert!(state.is_finished());
                assert_eq!(self.allowed(&mut state), [self.end]);
                return String::from_utf8(text).unwrap();
            }
            text.extend_from_slice(&self.bytes[token as usize]);
        }
        panic!("no end after {}…", String::from_utf8_lossy(&text[..200]));
    }

    /// A token that brings the end nearer.
    pub(crate) fn closing(&self, allowed: &[TokenId], random: &mut Random) -> TokenId {
        if allowed.contains(&self.end) {
            return self.end;
        }
        if random.below(10) < 8 {
            for close in ["}", "]", "\"", ")"] {
                let token = TokenId::from(close.as_bytes()[0]);
                if allowed.contains(&token) {
                    return token;
                }
            }
        }
        allowed[random.below(allowed.len())]
    }

    pub(crate) fn constraint(
        &self,
        format: &Format,
        chat: &Chat,
    ) -> Result<Option<Constraint>, Error> {
        Constraint::for_request(
            format,
            chat,
            Dialect::default(),
            Start::Content,
            &self.vocabulary,
        )
    }

    /// The constraint of a format alone.
    pub(crate) fn format(&self, format: &Format) -> Result<Constraint, Error> {
        Ok(self.constraint(format, &Chat::default())?.unwrap())
    }
}

#[test]
fn json_mode_gives_objects() {
    let model = Model::new();
    let constraint = model.format(&Format::JsonObject).unwrap();
    for seed in 0..40 {
        let text = model.walk(&constraint, seed);
        assert!(text.starts_with('{'), "{text}");
        parsed(&text, &text);
    }
}

/// `text` as JSON; `None` if a number in it is larger than serde_json can keep.
pub(crate) fn parsed(text: &str, shown: &dyn std::fmt::Display) -> Option<Value> {
    match serde_json::from_str(text) {
        Ok(value) => Some(value),
        Err(error) if error.to_string().contains("number out of range") => {
            serde_json::from_str::<serde::de::IgnoredAny>(text)
                .unwrap_or_else(|error| panic!("{shown}: {error}"));
            None
        }
        Err(error) => panic!("{shown}: {error}: {text}"),
    }
}

#[test]
fn schemas_hold() {
    let model = Model::new();
    let any_object = json!({"type": "object"});
    let schemas = [
        json!({"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}, "required": ["name", "age"], "additionalProperties": false}),
        json!({"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"type": "null"}, "c": {"type": "number"}}, "additionalProperties": false}),
        json!({"enum": ["red", "green", 7, null, {"deep": [true]}]}),
        json!({"const": {"exact": [1, "two"]}}),
        json!({"type": "array", "items": {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 3}, "minItems": 2, "maxItems": 4}),
        json!({"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": false}),
        json!({"type": "object", "properties": {"n": {"type": "integer", "minimum": -7, "maximum": 1234}, "x": {"type": "number", "exclusiveMinimum": 0, "maximum": 2.5}}, "required": ["n", "x"]}),
        json!({"type": "string", "pattern": "^[A-Z]{2,3}-[0-9]+$"}),
        json!({"type": "string", "minLength": 3, "maxLength": 5}),
        json!({"anyOf": [{"type": "string", "maxLength": 4}, {"type": "object", "properties": {"k": {"enum": ["a", "b"]}}, "required": ["k"], "additionalProperties": false}]}),
        json!({"oneOf": [{"type": "integer"}, {"type": "boolean"}]}),
        json!({"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}, {"properties": {"b": {"type": "string"}}, "required": ["b"]}]}),
        json!({"$ref": "#/$defs/tree", "$defs": {"tree": {"type": "object", "properties": {"value": {"type": "integer"}, "children": {"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 2}}, "required": ["value", "children"], "additionalProperties": false}}}),
        json!({"type": ["string", "null"]}),
        json!({"type": "object", "additionalProperties": {"type": "integer"}}),
        json!({"type": "object", "properties": {"id": {"type": "string", "format": "uuid"}, "day": {"type": "string", "format": "date"}, "ip": {"type": "string", "format": "ipv4"}}, "required": ["id", "day", "ip"]}),
        json!({"type": "object", "properties": {"ü \"quoted\"\n": {"type": "integer"}}, "required": ["ü \"quoted\"\n"], "additionalProperties": false}),
        json!({"type": "object", "properties": {}, "x-guidance": {"whitespace_pattern": "x*", "lenient": true}}),
        any_object,
        json!({}),
        json!(true),
    ];
    for schema in schemas {
        let validator = jsonschema::options()
            .should_validate_formats(true)
            .build(&schema)
            .unwrap();
        let constraint = model.format(&Format::JsonSchema(schema.clone())).unwrap();
        for seed in 0..12 {
            let text = model.walk(&constraint, seed);
            if let Some(value) = parsed(&text, &schema) {
                assert!(validator.is_valid(&value), "{schema}: {text}");
            }
        }
    }
}

#[test]
fn schemas_that_cannot_be_enforced_are_refused_with_their_field() {
    let model = Model::new();
    for schema in [
        json!("text"),
        json!(7),
        json!(false),
        json!({"type": "object", "propertyNames": {"pattern": "^a"}, "not": {"required": ["x"]}}),
        json!({"type": "number", "minimum": 5, "maximum": 4}),
        json!({"type": "string", "minLength": 9, "maxLength": 3}),
        json!({"type": "string", "pattern": "("}),
        json!({"type": "string", "pattern": "(?<=a)b"}),
        json!({"$ref": "#/$defs/missing"}),
        json!({"$ref": "https://example.com/schema.json"}),
        json!({"type": "array", "items": {"type": "integer"}, "uniqueItems": true}),
        json!({"type": "unheard-of"}),
    ] {
        match model.format(&Format::JsonSchema(schema.clone())) {
            Err(Error::InvalidRequest { field, reason }) => {
                assert_eq!(field, "response_format.json_schema.schema");
                assert!(!reason.contains('\n') && reason.len() < 600, "{reason}");
            }
            Err(error) => panic!("{schema}: {error}"),
            Ok(_) => panic!("{schema} was taken"),
        }
    }
}

pub(crate) fn tools() -> Vec<Tool> {
    let tool = |name: &str, parameters: Option<Value>| Tool {
        name: name.into(),
        description: None,
        parameters,
    };
    vec![
        tool(
            "get_weather",
            Some(json!({
                "type": "object",
                "properties": {
                    "city": {"type": "string", "maxLength": 20},
                    "unit": {"enum": ["celsius", "fahrenheit"]},
                },
                "required": ["city", "unit"],
                "additionalProperties": false,
            })),
        ),
        tool(
            "now",
            Some(json!({"type": "object", "properties": {}, "additionalProperties": false})),
        ),
        tool(
            "odd\"name\"\\",
            Some(json!({"properties": {"n": {"type": "integer"}}, "required": ["n"]})),
        ),
        tool("anything", None),
    ]
}

/// Every dialect that a template may speak.
const TEMPLATES: [&str; 13] = [
    "<tool_call>",
    "<|python_tag|>",
    "[TOOL_CALLS]",
    "<|channel|><|message|>",
    "functools[",
    "<TOOLCALL>",
    "<tool_calls>",
    "<|tool_call|>",
    "<function= <parameter=",
    "<arg_key>",
    "<|tool_calls_section_begin|>",
    "<｜tool▁calls▁begin｜>",
    "func_name1(params_name1",
];

/// Walks forced calls and returns how many calls each answer had.
fn check_calls(choice: &ToolChoice, parallel: bool, start: Start) -> Vec<usize> {
    let model = Model::new();
    let chat = Chat {
        tools: tools(),
        tool_choice: choice.clone(),
        parallel_tool_calls: parallel,
        ..Chat::default()
    };
    let mut counts = Vec::new();
    for template in TEMPLATES {
        if start == Start::Reasoning && template.contains("<|channel|>") {
            // Its prompts open nothing: reasoning is a message of its own.
            continue;
        }
        let dialect = constraint::forced_dialect(Dialect::detect(template), &Format::Text, &chat);
        let constraint =
            Constraint::for_request(&Format::Text, &chat, dialect, start, &model.vocabulary)
                .unwrap_or_else(|error| panic!("{template}: {error}"))
                .unwrap();
        for seed in 0..6 {
            let text = walk_after_reasoning(&model, &constraint, seed, start);
            let mut parser = OutputParser::new(dialect, &chat, start);
            let pieces = [parser.push(&text), parser.finish(FinishReason::Stop)].concat();
            let calls = check_pieces(&pieces, choice, &format!("{template}: {text:?}"));
            assert!(calls == 1 || parallel, "{template}: {text:?}");
            counts.push(calls);
        }
    }
    counts
}

/// With an open block of reasoning the walk first closes it.
fn walk_after_reasoning(model: &Model, constraint: &Constraint, seed: u64, start: Start) -> String {
    match start {
        Start::Content => model.walk(constraint, seed),
        Start::Reasoning => {
            let mut state = constraint.start();
            for byte in "Hm, {x} <think/> \u{e9} </think>".bytes() {
                assert!(!state.is_accepting());
                assert!(!model.allowed(&mut state).contains(&model.end));
                state.accept(TokenId::from(byte)).unwrap();
            }
            let mut text = b"Hm, {x} <think/> \xc3\xa9 </think>".to_vec();
            let mut random = Random(seed);
            for _ in 0..TOKENS_MAX {
                let allowed = model.allowed(&mut state);
                let token = model.closing(&allowed, &mut random);
                state.accept(token).unwrap();
                if token == model.end {
                    return String::from_utf8(text).unwrap();
                }
                text.extend_from_slice(&model.bytes[token as usize]);
            }
            panic!("no end after {}", String::from_utf8_lossy(&text));
        }
    }
}

fn check_pieces(pieces: &[Piece], choice: &ToolChoice, shown: &str) -> usize {
    let mut calls: Vec<(String, String)> = Vec::new();
    for piece in pieces {
        match piece {
            Piece::ToolCall(delta) => {
                if let Some(name) = &delta.name {
                    calls.push((name.clone(), String::new()));
                }
                calls.last_mut().unwrap().1.push_str(&delta.arguments);
            }
            Piece::Reasoning(_) => {}
            Piece::Content(text) => panic!("{shown} holds the content {text:?}"),
        }
    }
    assert!(!calls.is_empty(), "{shown} holds no call");
    for (name, arguments) in &calls {
        let tool = tools()
            .into_iter()
            .find(|tool| tool.name == *name)
            .unwrap_or_else(|| panic!("{shown}: {name}"));
        assert!(
            !matches!(choice, ToolChoice::Named(wanted) if wanted != name),
            "{shown}"
        );
        assert!(arguments.starts_with('{'), "{shown}");
        let Some(value) = parsed(arguments, &shown) else {
            continue;
        };
        let schema = tool.parameters.unwrap_or(json!({}));
        assert!(jsonschema::is_valid(&schema, &value), "{shown}");
    }
    calls.len()
}

#[test]
fn required_calls_are_made() {
    let counts = check_calls(&ToolChoice::Required, false, Start::Content);
    assert!(counts.iter().all(|count| *count == 1));
}

#[test]
fn required_calls_may_be_parallel() {
    let counts = check_calls(&ToolChoice::Required, true, Start::Content);
    assert!(counts.iter().any(|count| *count > 1), "{counts:?}");
}

#[test]
fn named_calls_are_made() {
    for tool in tools() {
        check_calls(&ToolChoice::Named(tool.name), false, Start::Content);
    }
}

#[test]
fn calls_come_after_reasoning_that_the_prompt_opened() {
    check_calls(&ToolChoice::Required, true, Start::Reasoning);
}

#[test]
fn answers_in_json_may_call_tools_instead() {
    let model = Model::new();
    let chat = Chat {
        tools: tools(),
        ..Chat::default()
    };
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": false});
    let format = Format::JsonSchema(schema);
    let constraint = model.constraint(&format, &chat).unwrap().unwrap();
    let (mut answers, mut calls) = (0, 0);
    for seed in 0..30 {
        let text = model.walk(&constraint, seed);
        let mut parser = OutputParser::new(Dialect::default(), &chat, Start::Content);
        let pieces = [parser.push(&text), parser.finish(FinishReason::Stop)].concat();
        if parser.called_tools() {
            calls += check_pieces(&pieces, &ToolChoice::Required, &text);
        } else {
            let value: Value = serde_json::from_str(&text).unwrap();
            assert!(value["a"].is_number(), "{text}");
            answers += 1;
        }
    }
    assert!(answers > 0 && calls > 0, "{answers} answers, {calls} calls");
}

#[test]
fn free_answers_have_no_constraint() {
    let model = Model::new();
    let mut chat = Chat {
        tools: tools(),
        ..Chat::default()
    };
    assert!(model.constraint(&Format::Text, &chat).unwrap().is_none());
    chat.tool_choice = ToolChoice::None;
    assert!(model.constraint(&Format::Text, &chat).unwrap().is_none());
}

#[test]
fn what_is_forbidden_is_not_taken() {
    let model = Model::new();
    for format in [
        Format::JsonObject,
        Format::Grammar("root ::= \"{\" [a-z]+ \"}\"".into()),
    ] {
        let mut state = model.format(&format).unwrap().start();
        let letter = TokenId::from(b'x');
        assert!(!state.allows(letter) && state.allows(TokenId::from(b'{')));
        assert!(matches!(state.accept(model.end), Err(Error::Inference(_))));
        for token in [letter, -1, TokenId::MAX, model.bytes.len() as TokenId] {
            assert!(!state.allows(token));
            assert!(matches!(
                state.clone().accept(token),
                Err(Error::Inference(_))
            ));
        }
        state.accept(TokenId::from(b'{')).unwrap();
        assert!(state.rollback(2).is_err());
        state.rollback(1).unwrap();
        assert!(state.allows(TokenId::from(b'{')));
        // Logits of any length: what is beyond the vocabulary is forbidden.
        let mut logits = vec![0.0; model.bytes.len() + 40];
        state.mask(&mut logits).unwrap();
        assert!(
            logits[model.bytes.len()..]
                .iter()
                .all(|logit| *logit == f32::NEG_INFINITY)
        );
        state.mask(&mut logits[..10]).unwrap();
        state.mask(&mut []).unwrap();
    }
}

#[test]
fn clones_go_their_own_ways() {
    let model = Model::new();
    for format in [
        Format::JsonObject,
        Format::Grammar("root ::= \"{\" [a-z]+ \"}\"".into()),
    ] {
        let mut one = model.format(&format).unwrap().start();
        one.accept(TokenId::from(b'{')).unwrap();
        let mut two = one.clone();
        let before = model.allowed(&mut one);
        two.accept(before[0]).unwrap();
        assert_eq!(model.allowed(&mut one), before);
    }
}

#[test]
fn a_vocabulary_without_an_end_cannot_be_constrained() {
    let vocabulary = Vocabulary::new(token_bytes(300), Vec::new(), Vec::new());
    let made = Constraint::for_request(
        &Format::JsonObject,
        &Chat::default(),
        Dialect::default(),
        Start::Content,
        &vocabulary,
    );
    assert!(made.unwrap_err().to_string().contains("end-of-text"));
}
