//! Schemas and grammars that are made to be expensive: each is refused, or followed at a bounded
//! price.

use engine::text::{ConstraintState, Dialect, OutputParser, Start};
use engine::{Chat, Error, FinishReason, Format, Tool, ToolChoice};
use serde_json::{Map, Value, json};

use crate::constraint::{Model, Random};

/// Steps that are followed of what is not refused.
const STEPS: usize = 40;

/// Follows a constraint some steps. `false`: it was refused, before or while it was followed.
fn follow(model: &Model, format: &Format, chat: &Chat) -> bool {
    let constraint = match model.constraint(format, chat) {
        Ok(constraint) => constraint.unwrap(),
        Err(Error::InvalidRequest { reason, .. }) => {
            assert!(!reason.is_empty() && reason.len() < 1000, "{reason}");
            return false;
        }
        Err(error) => panic!("{error}"),
    };
    let mut state = constraint.start();
    let mut random = Random(7);
    for _ in 0..STEPS {
        match step(model, &mut state, &mut random) {
            Ok(true) => {}
            Ok(false) => return true,
            Err(Error::Inference(_)) => return false,
            Err(error) => panic!("{error}"),
        }
    }
    true
}

/// One random token; `false` at the end.
fn step(model: &Model, state: &mut ConstraintState, random: &mut Random) -> Result<bool, Error> {
    let mut logits = vec![0.0; model.bytes.len()];
    state.mask(&mut logits)?;
    let allowed: Vec<i32> = (0..)
        .zip(&logits)
        .filter(|(_, logit)| **logit == 0.0)
        .map(|(token, _)| token)
        .collect();
    assert!(!allowed.is_empty());
    state.accept(allowed[random.below(allowed.len())])?;
    Ok(!state.is_finished())
}

fn nested(depth: usize, wrap: impl Fn(Value) -> Value) -> Value {
    (0..depth).fold(json!({"type": "integer"}), |inner, _| wrap(inner))
}

/// `count` definitions, each made of the next by `wrap`.
fn definitions(count: usize, wrap: impl Fn(Value) -> Value) -> Value {
    let mut all = Map::new();
    for index in 0..count {
        all.insert(
            format!("d{index}"),
            wrap(json!({"$ref": format!("#/$defs/d{}", index + 1)})),
        );
    }
    all.insert(
        format!("d{count}"),
        json!({"type": "object", "properties": {"x": {"type": "integer"}}}),
    );
    json!({"$ref": "#/$defs/d0", "$defs": all})
}

#[test]
fn schemas_that_must_be_refused() {
    let model = Model::new();
    let many: Vec<String> = (0..100_000).map(|index| format!("value {index}")).collect();
    for (name, schema) in [
        (
            "nesting",
            nested(2000, |inner| json!({"type": "array", "items": inner})),
        ),
        (
            "minLength",
            json!({"type": "string", "minLength": 1_000_000_000}),
        ),
        ("maxLength", json!({"type": "string", "maxLength": 1e300})),
        (
            "minItems",
            json!({"type": "array", "minItems": 1_000_000_000}),
        ),
        ("enum", json!({"enum": many})),
        (
            "pattern",
            json!({"type": "string", "pattern": "a".repeat(1_000_000)}),
        ),
        ("text", json!({"description": "x".repeat(10_000_000)})),
        ("self", json!({"$ref": "#"})),
        (
            "circle",
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}),
        ),
    ] {
        assert!(
            !follow(&model, &Format::JsonSchema(schema), &Chat::default()),
            "{name} was taken"
        );
    }
}

/// These may be refused or not; they end, and do not fill the memory.
#[test]
fn schemas_that_are_expensive() {
    let model = Model::new();
    let strings = |count: usize| -> Vec<String> {
        (0..count).map(|index| format!("value {index}")).collect()
    };
    let any_of = |index: usize| {
        json!({"anyOf": [
            {"properties": {format!("a{index}"): {"type": "integer"}}, "required": [format!("a{index}")]},
            {"properties": {format!("b{index}"): {"type": "integer"}}, "required": [format!("b{index}")]},
        ]})
    };
    let properties: Map<String, Value> = (0..5000)
        .map(|index| (format!("p{index}"), json!({"type": "string"})))
        .collect();
    let required: Vec<String> = (0..5000).map(|index| format!("p{index}")).collect();
    let patterns: Map<String, Value> = (0..200)
        .map(|index| (format!("^(a|b)*{index}$"), json!({"type": "integer"})))
        .collect();
    for schema in [
        json!({"$ref": "#/$defs/a", "$defs": {"a": {"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}, "required": ["a"], "additionalProperties": false}}}),
        json!({"type": "string", "pattern": "(a+)+$"}),
        json!({"type": "string", "pattern": "^(a+)+$"}),
        json!({"type": "string", "pattern": "(.{1000}){1000}"}),
        json!({"type": "string", "pattern": "^(((a{10}){10}){10}){10}b$"}),
        json!({"type": "string", "pattern": "(.*a.{20}){3}"}),
        json!({"type": "string", "pattern": "(x+x+)+y"}),
        json!({"type": "string", "pattern": "\\p{L}{500}\\p{N}{500}"}),
        json!({"type": "string", "pattern": format!("^{}$", "(a|b|".repeat(300) + &")".repeat(300))}),
        json!({"type": "string", "minLength": 100_000, "maxLength": 100_000}),
        json!({"type": "array", "items": {"type": "string", "minLength": 1000}, "minItems": 100_000}),
        json!({"type": "array", "items": {}, "maxItems": 100_000}),
        json!({"type": "array", "items": {"type": "array", "items": {"type": "array", "minItems": 1000}, "minItems": 1000}, "minItems": 1000}),
        json!({"enum": strings(40_000)}),
        json!({"type": "array", "items": {"enum": strings(2000)}}),
        json!({"allOf": (0..16).map(any_of).collect::<Vec<_>>()}),
        json!({"allOf": (0..40).map(any_of).collect::<Vec<_>>()}),
        json!({"oneOf": (0..1000).map(|index| json!({"const": index})).collect::<Vec<_>>()}),
        json!({"oneOf": (0..300).map(any_of).collect::<Vec<_>>()}),
        json!({"anyOf": (0..3000).map(any_of).collect::<Vec<_>>()}),
        json!({"type": "object", "properties": properties}),
        json!({"type": "object", "properties": properties, "required": required}),
        json!({"type": "object", "patternProperties": patterns}),
        json!({"type": "number", "minimum": 1e-300, "maximum": 1e300}),
        json!({"type": "integer", "multipleOf": 7, "minimum": 1, "maximum": 1_000_000_000_000_u64}),
        json!({"type": "number", "multipleOf": 0.000_000_001}),
        json!({"type": "integer", "multipleOf": 999_999_937}),
        json!({"type": "string", "minLength": 5, "maxLength": 50_000, "pattern": "^(ab|cd)*$"}),
        definitions(40, |next| json!({"allOf": [next, next]})),
        definitions(40, |next| json!({"anyOf": [next, next]})),
        definitions(40, |next| json!({"oneOf": [next, next]})),
        definitions(
            40,
            |next| json!({"type": "object", "properties": {"a": next, "b": next}}),
        ),
        definitions(2000, |next| json!({"type": "array", "items": next})),
        definitions(2000, |next| next),
        nested(30, |inner| json!({"anyOf": [inner, {"type": "null"}]})),
        nested(
            14,
            |inner| json!({"anyOf": [inner, {"type": "array", "items": inner}]}),
        ),
        nested(60, |inner| json!({"allOf": [inner, {}]})),
        nested(60, |inner| json!({"not": inner})),
    ] {
        follow(&model, &Format::JsonSchema(schema), &Chat::default());
    }
}

#[test]
fn tools_that_are_expensive() {
    let model = Model::new();
    let tool = |name: String, parameters: Value| Tool {
        name,
        description: None,
        parameters: Some(parameters),
    };
    let chat = |tools: Vec<Tool>| Chat {
        tools,
        tool_choice: ToolChoice::Required,
        parallel_tool_calls: true,
        ..Chat::default()
    };
    let good = json!({"type": "object", "properties": {"x": {"type": "string"}}});
    let many = (0..500)
        .map(|index| tool(format!("tool_{index}"), good.clone()))
        .collect();
    assert!(follow(&model, &Format::Text, &chat(many)));
    let too_many = (0..600)
        .map(|index| tool(format!("tool_{index}"), good.clone()))
        .collect();
    assert!(!follow(&model, &Format::Text, &chat(too_many)));
    let strange = vec![
        tool("x".repeat(100_000), good.clone()),
        tool("\u{0}\n\"%{}[]".into(), good),
    ];
    assert!(follow(&model, &Format::Text, &chat(strange)));
    let deep = nested(1000, |inner| json!({"properties": {"x": inner}}));
    let error = model
        .constraint(&Format::Text, &chat(vec![tool("f".into(), deep)]))
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("tools[0].function.parameters: is nested"),
        "{error}"
    );
}

#[test]
fn grammars_that_must_be_refused() {
    let model = Model::new();
    let long_rule = format!("root ::= {}", "\"a\" ".repeat(100_000));
    let deep = format!("root ::= {}\"a\"{}", "(".repeat(10_000), ")".repeat(10_000));
    let open = format!("root ::= {}", "(".repeat(10_000));
    let marks = format!("root ::= \"a\"{}", "?".repeat(10_000));
    for grammar in [&long_rule, &deep, &open, &marks] {
        let shown = &grammar[..grammar.len().min(60)];
        assert!(
            !follow(&model, &Format::Grammar(grammar.into()), &Chat::default()),
            "{shown} was taken"
        );
    }
}

#[test]
fn grammars_that_are_expensive() {
    let model = Model::new();
    let doubling: String = (0..24)
        .map(|index| format!("r{index} ::= r{0} r{0}\n", index + 1))
        .chain(["r24 ::= \"a\"?\nroot ::= r0 \"b\"".to_owned()])
        .collect();
    let choices: String = (0..3000).map(|index| format!("\"{index}x\" | ")).collect();
    let chain: String = (0..5000)
        .map(|index| format!("r{index} ::= r{}\n", index + 1))
        .chain(["r5000 ::= \"a\"\nroot ::= r0".to_owned()])
        .collect();
    for grammar in [
        "root ::= ((\"a\"{1000}){1000})",
        "root ::= ((((\"a\"{0,100}){0,100}){0,100}){0,100})",
        "root ::= (((\"a\" | \"b\"){2000} \"c\"){2000} \"d\"){2000}",
        "root ::= (\"a\"* \"a\"*)* \"b\"",
        "root ::= ((\"a\"*)*)* \"b\"",
        "root ::= (\"a\"? \"a\"? \"a\"?){200} \"b\"",
        "root ::= (.{0,1000} \"x\"){0,200}",
        "root ::= .* .* .* .* .* .* .* .* \"x\"",
        "root ::= s\ns ::= \"a\" s s | \"a\" s | \"a\"",
        "root ::= s \"b\"\ns ::= \"a\" s \"a\" | \"a\" s | \"\"",
        "root ::= [^x]{2000} (\"a\" | \"b\" | \"c\"){2000}",
        "root ::= [\\u0000-\\U0010FFFF]{0,2000}",
        &doubling,
        &format!("root ::= ({choices}\"y\")*"),
        &chain,
    ] {
        follow(&model, &Format::Grammar(grammar.into()), &Chat::default());
    }
}

/// A model that never closes what it opens: the parser gives up on it and does not search the
/// same text again and again.
#[test]
fn endless_answers_are_read_once() {
    let chat = Chat {
        tools: vec![Tool {
            name: "f".into(),
            description: None,
            parameters: None,
        }],
        ..Chat::default()
    };
    for (template, begin, piece, end) in [
        (
            "<tool_call>",
            "<tool_call>{\"name\": \"f\", \"x\": \"",
            "abc ",
            "",
        ),
        (
            "<tool_call>",
            "<tool_call>{\"name\": \"f\", \"arguments\": \"",
            "abc ",
            "",
        ),
        (
            "<tool_call>",
            "<tool_call>{\"name\": \"f\", \"arguments\": {\"x\": \"",
            "abc ",
            "\"}}</tool_call>",
        ),
        ("<tool_call>", "", "    ", "x"),
        ("<tool_call>", "x", "\n\n\n\n", "x"),
        ("<tool_call>", "<think>x", "    ", "</think>x"),
        ("<tool_call>", "<think>", "    ", "</think>x"),
        ("<tool_call>", "<tool_call>{\"name\": \"f\"}", "    ", "x"),
        ("<arg_key>", "<tool_call>f\n", "<arg_key>x</arg_key>", ""),
        (
            "<|channel|><|message|>",
            "<|channel|>",
            "analysis ",
            "<|message|>x",
        ),
        (
            "<|channel|><|message|>",
            "<|channel|>final<|message|>",
            "<|en",
            "",
        ),
        ("func_name1(params_name1", "[f(", "x=[", ""),
        (
            "<function= <parameter=",
            "<tool_call>",
            "<function=f><parameter=x>",
            "</tool_call>",
        ),
        (
            "<|tool_calls_section_begin|>",
            "<|tool_calls_section_begin|>",
            "<|tool_call_begin|>f:0",
            "",
        ),
    ] {
        let mut parser = OutputParser::new(Dialect::detect(template), &chat, Start::Content);
        let mut pieces = 0;
        pieces += parser.push(begin).len();
        // 2 MB of text in the smallest pieces that a tokenizer gives.
        for _ in 0..(2 << 20) / piece.len() {
            pieces += parser.push(piece).len();
        }
        pieces += parser.push(end).len() + parser.finish(FinishReason::Stop).len();
        assert!(pieces > 0, "{template}: {begin}");
    }
}

/// Bytes of white space between two JSON tokens: a line break and its indentation.
const BLANK_BYTES_MAX: usize = 21;

/// Longest run of white space outside of JSON strings.
fn longest_blank(text: &[u8]) -> usize {
    let (mut longest, mut run) = (0, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in text {
        run = if byte.is_ascii_whitespace() && !in_string {
            run + 1
        } else {
            0
        };
        longest = longest.max(run);
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            _ => {}
        }
    }
    longest
}

/// A model that writes white space wherever it may, before, between and after JSON tokens, gets
/// no further than one indented line each time.
#[test]
fn white_space_has_an_end() {
    let model = Model::new();
    let object = json!({"type": "object", "properties": {"a": {"type": "integer"},
        "b": {"type": "array", "items": {"type": "boolean"}}, "c": {"enum": ["x y", null]}}});
    let schemas = [
        json!({}),
        object.clone(),
        json!({"type": "array", "items": object}),
        json!({"type": "number"}),
        json!({"type": "string"}),
        json!({"anyOf": [{"type": "integer"}, {"const": {"k": [1, 2]}}]}),
    ];
    let tool = |(index, schema): (usize, &Value)| Tool {
        name: format!("tool_{index}"),
        description: None,
        parameters: Some(schema.clone()),
    };
    let forced = Chat {
        tools: schemas[..2].iter().enumerate().map(tool).collect(),
        tool_choice: ToolChoice::Required,
        parallel_tool_calls: true,
        ..Chat::default()
    };
    let mut constraints = vec![
        model.format(&Format::JsonObject).unwrap(),
        model.constraint(&Format::Text, &forced).unwrap().unwrap(),
    ];
    for schema in schemas {
        constraints.push(model.format(&Format::JsonSchema(schema)).unwrap());
    }
    for (constraint, seed) in constraints.iter().flat_map(|c| [(c, 1), (c, 2), (c, 3)]) {
        let mut state = constraint.start();
        let mut random = Random(seed);
        let mut text = Vec::new();
        for _ in 0..150 {
            let mut logits = vec![0.0; model.bytes.len()];
            state.mask(&mut logits).unwrap();
            let allowed: Vec<usize> = (0..logits.len()).filter(|t| logits[*t] == 0.0).collect();
            let blank = |token: &&usize| {
                let bytes = &model.bytes[**token];
                bytes.iter().all(u8::is_ascii_whitespace)
            };
            let blanks: Vec<usize> = allowed.iter().filter(blank).copied().collect();
            let token = match blanks.len() {
                0 => allowed[random.below(allowed.len())],
                count => blanks[random.below(count)],
            };
            text.extend_from_slice(&model.bytes[token]);
            state.accept(token as i32).unwrap();
            if state.is_finished() {
                break;
            }
        }
        let shown = String::from_utf8_lossy(&text);
        assert!(
            longest_blank(&text) <= BLANK_BYTES_MAX,
            "{constraint:?}: {shown:?}"
        );
    }
}
