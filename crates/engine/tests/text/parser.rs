//! Answers of many models, cut into pieces in every way: content, reasoning and calls come out
//! the same.

use engine::text::{Dialect, OutputParser, Piece, Start};
use engine::{Chat, FinishReason, Tool, ToolChoice};
use proptest::prelude::*;
use serde_json::{Value, json};

/// What an answer is read as; pieces joined.
#[derive(Debug, Default, Clone, PartialEq)]
struct Read {
    content: String,
    reasoning: String,
    calls: Vec<(String, String)>,
}

/// One answer and how it must be read. `template` only has to name the dialect.
struct Case {
    template: &'static str,
    start: Start,
    parallel: bool,
    text: &'static str,
    content: &'static str,
    reasoning: &'static str,
    calls: &'static [(&'static str, &'static str)],
}

const fn case(template: &'static str, text: &'static str) -> Case {
    Case {
        template,
        start: Start::Content,
        parallel: true,
        text,
        content: "",
        reasoning: "",
        calls: &[],
    }
}

impl Case {
    const fn content(self, content: &'static str) -> Self {
        Self { content, ..self }
    }

    const fn reasoning(self, reasoning: &'static str) -> Self {
        Self { reasoning, ..self }
    }

    const fn calls(self, calls: &'static [(&'static str, &'static str)]) -> Self {
        Self { calls, ..self }
    }

    const fn opened(self) -> Self {
        Self {
            start: Start::Reasoning,
            ..self
        }
    }

    const fn one_call(self) -> Self {
        Self {
            parallel: false,
            ..self
        }
    }
}

const HERMES: &str = "<tool_call>";
const LLAMA: &str = "<|python_tag|>";
const MISTRAL: &str = "[TOOL_CALLS]";
const HARMONY: &str = "<|channel|><|message|>";
const PHI: &str = "functools[";
const NEMOTRON: &str = "<TOOLCALL>";
const GRANITE: &str = "<|tool_call|>";
const QWEN_CODER: &str = "<function= <parameter=";
const GLM: &str = "<arg_key>";
const KIMI: &str = "<|tool_calls_section_begin|>";
const DEEPSEEK: &str = "<｜tool▁calls▁begin｜>";
const DEEPSEEK_JSON: &str = "<｜tool▁calls▁begin｜> ```json";
const MINIMAX: &str = "<minimax:tool_call>";
const PYTHONIC: &str = "func_name1(params_name1";
const LFM: &str = "<|tool_call_start|>";

const PARIS: &[(&str, &str)] = &[("weather", "{\"city\": \"Paris\"}")];
const TWO: &[(&str, &str)] = &[("weather", "{\"city\": \"Paris\"}"), ("time", "{}")];

const CASES: &[Case] = &[
    // Plain answers.
    case(HERMES, "Hello there!").content("Hello there!"),
    case(HERMES, "").content(""),
    case(HERMES, "  two  spaces \n").content("  two  spaces \n"),
    case(HERMES, "a < b and <tool is no tag </think>").content("a < b and <tool is no tag </think>"),
    case(HERMES, "{\"name\": \"weather\", \"arguments\": {}}").content("{\"name\": \"weather\", \"arguments\": {}}"),
    case(HARMONY, "no header at all").content("no header at all"),
    // Reasoning, with its opening tag and without.
    case(HERMES, "<think>\nHm.\n</think>\n\nYes.").reasoning("Hm.").content("Yes."),
    case(HERMES, "\n<think>Hm.</think>Yes.").reasoning("Hm.").content("Yes."),
    case(HERMES, "Hm.\n</think>\n\nYes.").opened().reasoning("Hm.").content("Yes."),
    case(HERMES, "<think>\nHm.\n</think>\n\nYes.").opened().reasoning("Hm.").content("Yes."),
    case(HERMES, "Hm, a </thin lie").opened().reasoning("Hm, a </thin lie"),
    case(HERMES, "</think>Yes.").opened().content("Yes."),
    case(HERMES, "<think></think>Yes.").content("Yes."),
    case(HERMES, "I say <think> is a tag").content("I say <think> is a tag"),
    case(HERMES, "<think>a</think>b<think>c</think>").reasoning("a").content("b<think>c</think>"),
    case(HERMES, "<think>cut off").reasoning("cut off"),
    case(HERMES, "<think>a<tool_call>b</think>c").reasoning("a<tool_call>b").content("c"),
    case("[THINK]", "[THINK]a[/THINK]b").reasoning("a").content("b"),
    case("◁think▷", "◁think▷ä◁/think▷b").reasoning("ä").content("b"),
    // Hermes.
    case(HERMES, "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>").calls(PARIS),
    case(HERMES, "<think>Hm.</think>\n<tool_call>{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}</tool_call>").reasoning("Hm.").calls(PARIS),
    case(HERMES, "I look. \n\n<tool_call>{\"arguments\": {\"city\": \"Paris\"}, \"name\": \"weather\"}</tool_call>\n").content("I look.").calls(PARIS),
    case(HERMES, "<tool_call>{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}</tool_call>\n<tool_call>{\"name\": \"time\"}</tool_call>").calls(TWO),
    case(HERMES, "<tool_call>{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}</tool_call>\n<tool_call>{\"name\": \"time\"}</tool_call>").one_call().calls(PARIS),
    case(HERMES, "<tool_call>{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}</tool_call>\nDone.").content("Done.").calls(PARIS),
    case(HERMES, "<tool_call>{\"name\": \"weather\", \"arguments\": \"{\\\"city\\\": \\\"Paris\\\"}\"}</tool_call>").calls(PARIS),
    case(HERMES, "<tool_call>{\"type\": \"function\", \"function\": {\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}}</tool_call>").calls(PARIS),
    case(HERMES, "<tool_call>{\"id\": [1, {\"x\": \"}\"}], \"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}</tool_call>").calls(PARIS),
    case(HERMES, "<tool_call>[{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}, {\"name\": \"time\", \"arguments\": {}}]</tool_call>").calls(TWO),
    case(HERMES, "<tool_call>{\"name\": \"weather\", \"arguments\": {\"a\": \"}]\\\"\\\\\", \"b\": [{}]}}</tool_call>").calls(&[("weather", "{\"a\": \"}]\\\"\\\\\", \"b\": [{}]}")]),
    case(HERMES, "<tool_call>{\"name\": \"time\", \"arguments\": null}</tool_call>").calls(&[("time", "{}")]),
    // Without the closing marker.
    case(HERMES, "<tool_call>{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}").calls(PARIS),
    // Not a call: it comes back as text.
    case(HERMES, "<tool_call>no JSON</tool_call>").content("<tool_call>no JSON</tool_call>"),
    case(HERMES, "<tool_call>{\"nam\": 1}</tool_call> x").content("<tool_call>{\"nam\": 1}</tool_call> x"),
    case(HERMES, "<tool_call>{\"name\": \"weather\"").content("<tool_call>{\"name\": \"weather\""),
    case(HERMES, "see <tool_call>, a tag").content("see<tool_call>, a tag"),
    case(HERMES, "<tool_call>{\"name\": 7, \"arguments\": {}}</tool_call>").content("<tool_call>{\"name\": 7, \"arguments\": {}}</tool_call>"),
    // Llama: bare JSON with a known name.
    case(LLAMA, "{\"name\": \"weather\", \"parameters\": {\"city\": \"Paris\"}}").calls(PARIS),
    case(LLAMA, "<|python_tag|>{\"type\": \"function\", \"name\": \"weather\", \"parameters\": {\"city\": \"Paris\"}}<|eom_id|>").calls(PARIS),
    case(LLAMA, "{\"name\": \"weather\", \"parameters\": {\"city\": \"Paris\"}}; {\"name\": \"time\", \"parameters\": {}}").calls(TWO),
    case(LLAMA, "{\"name\": \"Bob\", \"age\": 3}").content("{\"name\": \"Bob\", \"age\": 3}"),
    case(LLAMA, "{\"name\": \"Bob\", \"parameters\": {}}").content("{\"name\": \"Bob\", \"parameters\": {}}"),
    case(LLAMA, "  {not json").content("{not json"),
    // Mistral, both forms.
    case(MISTRAL, "[TOOL_CALLS][{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}, {\"name\": \"time\", \"arguments\": {}}]").calls(TWO),
    case(MISTRAL, "[TOOL_CALLS]weather[ARGS]{\"city\": \"Paris\"}").calls(PARIS),
    case(MISTRAL, "[TOOL_CALLS]weather[CALL_ID]abc123[ARGS]{\"city\": \"Paris\"}[TOOL_CALLS]time[ARGS]{}").calls(TWO),
    case(MISTRAL, "Well. [TOOL_CALLS] oh").content("Well.[TOOL_CALLS] oh"),
    // Other JSON forms.
    case(PHI, "functools[{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}]").calls(PARIS),
    case(NEMOTRON, "<TOOLCALL>[{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}]</TOOLCALL>").calls(PARIS),
    case(GRANITE, "<|tool_call|>[{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}]").calls(PARIS),
    // Harmony.
    case(HARMONY, "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes.<|return|>").reasoning("Hm.").content("Yes."),
    case(HARMONY, "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{\"city\": \"Paris\"}<|call|>").reasoning("Hm.").calls(PARIS),
    case(HARMONY, "<|start|>assistant to=functions.time<|channel|>commentary<|message|><|call|>").calls(&[("time", "{}")]),
    case(HARMONY, "<|channel|>commentary<|message|>I look.<|end|>").content("I look."),
    // Blocks.
    case(QWEN_CODER, "<tool_call>\n<function=weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>").calls(PARIS),
    case(QWEN_CODER, "I look.\n<tool_call>\n<function=weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>").content("I look.").calls(PARIS),
    case(GLM, "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n</tool_call>").calls(PARIS),
    case(KIMI, "<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0<|tool_call_argument_begin|>{\"city\": \"Paris\"}<|tool_call_end|><|tool_calls_section_end|>").calls(PARIS),
    case(DEEPSEEK, "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{\"city\": \"Paris\"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>").calls(PARIS),
    case(DEEPSEEK_JSON, "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{\"city\": \"Paris\"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>").calls(PARIS),
    case(MINIMAX, "<minimax:tool_call>\n<invoke name=\"weather\">\n<parameter name=\"city\">Paris</parameter>\n</invoke>\n</minimax:tool_call>").calls(PARIS),
    case(PYTHONIC, "[weather(city='Paris')]").calls(PARIS),
    case(PYTHONIC, "[weather(city='Paris'), time()]").calls(TWO),
    case(PYTHONIC, "[1, 2]").content("[1, 2]"),
    case(LFM, "<|tool_call_start|>[weather(city=\"Paris\")]<|tool_call_end|>").calls(PARIS),
    // A block that is none, and one that is cut off.
    case(GLM, "<tool_call></tool_call>x").content("<tool_call></tool_call>x"),
    case(KIMI, "<|tool_calls_section_begin|>garbage").content("<|tool_calls_section_begin|>garbage"),
];

fn chat(parallel: bool) -> Chat {
    let tool = |name: &str, parameters: Value| Tool {
        name: name.into(),
        description: None,
        parameters: Some(parameters),
    };
    Chat {
        tools: vec![
            tool(
                "weather",
                json!({"type": "object", "properties": {"city": {"type": "string"}}}),
            ),
            tool("time", json!({"type": "object", "properties": {}})),
        ],
        parallel_tool_calls: parallel,
        ..Chat::default()
    }
}

/// Reads pieces, checking that calls are numbered and named as they must be.
fn read<'a>(parser: OutputParser, pieces: impl IntoIterator<Item = &'a str>) -> Read {
    read_ended(parser, pieces, FinishReason::Stop)
}

fn read_ended<'a>(
    mut parser: OutputParser,
    pieces: impl IntoIterator<Item = &'a str>,
    reason: FinishReason,
) -> Read {
    let mut read = Read::default();
    let mut ids = std::collections::BTreeSet::new();
    let mut take = |parts: Vec<Piece>| {
        for part in parts {
            match part {
                Piece::Content(text) => {
                    assert!(!text.is_empty());
                    read.content.push_str(&text);
                }
                Piece::Reasoning(text) => {
                    assert!(!text.is_empty());
                    read.reasoning.push_str(&text);
                }
                Piece::ToolCall(delta) => {
                    let index = delta.index as usize;
                    if let Some(name) = delta.name {
                        assert_eq!(index, read.calls.len(), "calls are numbered in order");
                        assert!(ids.insert(delta.id.expect("a name comes with an identifier")));
                        read.calls.push((name, String::new()));
                    } else {
                        assert!(delta.id.is_none());
                    }
                    read.calls[index].1.push_str(&delta.arguments);
                }
            }
        }
    };
    for piece in pieces {
        take(parser.push(piece));
    }
    take(parser.finish(reason));
    assert_eq!(parser.called_tools(), !read.calls.is_empty());
    read
}

fn parser(case: &Case) -> OutputParser {
    OutputParser::new(
        Dialect::detect(case.template),
        &chat(case.parallel),
        case.start,
    )
}

fn expected(case: &Case) -> Read {
    Read {
        content: case.content.into(),
        reasoning: case.reasoning.into(),
        calls: case
            .calls
            .iter()
            .map(|(name, arguments)| ((*name).into(), (*arguments).into()))
            .collect(),
    }
}

/// Arguments as JSON: parsers of whole blocks write their own.
fn same(left: &Read, right: &Read) -> bool {
    let json = |read: &Read| -> Vec<(String, Option<Value>)> {
        read.calls
            .iter()
            .map(|(name, text)| (name.clone(), serde_json::from_str(text).ok()))
            .collect()
    };
    left.content == right.content && left.reasoning == right.reasoning && json(left) == json(right)
}

#[test]
fn whole_answers() {
    let mut wrong = Vec::new();
    for case in CASES {
        let got = read(parser(case), [case.text]);
        if !same(&got, &expected(case)) {
            wrong.push(format!(
                "{}: {:?}\n  read as {got:?}",
                case.template, case.text
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn answers_character_by_character() {
    let mut wrong = Vec::new();
    for case in CASES {
        let got = read(
            parser(case),
            case.text.split("").filter(|piece| !piece.is_empty()),
        );
        if !same(&got, &expected(case)) {
            wrong.push(format!(
                "{}: {:?}\n  read as {got:?}",
                case.template, case.text
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn answers_cut_in_two_anywhere() {
    for case in CASES {
        for (at, _) in case.text.char_indices() {
            let (first, second) = case.text.split_at(at);
            let got = read(parser(case), [first, second]);
            assert!(
                same(&got, &expected(case)),
                "{first:?} | {second:?}\n  read as {got:?}"
            );
        }
    }
}

/// Wherever an answer with calls is cut off, its content is a beginning of the whole content, and
/// its calls are a beginning of the whole calls: nothing of the markup shows.
#[test]
fn answers_cut_off_by_a_limit() {
    for case in CASES.iter().filter(|case| !case.calls.is_empty()) {
        let whole = expected(case);
        // Without a marker, what starts like a call may also be an answer in JSON.
        let bare = case.template == LLAMA;
        for forced in [false, true] {
            if forced && !case.content.is_empty() || bare && !forced {
                continue;
            }
            let mut chat = chat(case.parallel);
            if forced {
                chat.tool_choice = ToolChoice::Required;
            }
            let parser = OutputParser::new(Dialect::detect(case.template), &chat, case.start);
            for (at, _) in case.text.char_indices() {
                let text = &case.text[..at];
                // A stop string ends a forced call in the same way.
                let reason = if forced && at % 2 == 0 {
                    FinishReason::Stop
                } else {
                    FinishReason::Length
                };
                let got = read_ended(parser.clone(), [text], reason);
                let pieces = text.split("").filter(|piece| !piece.is_empty());
                let piecewise = read_ended(parser.clone(), pieces, reason);
                assert_eq!(got, piecewise, "{}: {text:?}", case.template);
                check_beginning(&got, &whole, case, text);
            }
        }
    }
}

fn check_beginning(got: &Read, whole: &Read, case: &Case, text: &str) {
    let said = format!("{}: {text:?}\n  read as {got:?}", case.template);
    assert!(whole.content.starts_with(got.content.trim()), "{said}");
    assert!(whole.reasoning.starts_with(&got.reasoning), "{said}");
    assert!(got.calls.len() <= whole.calls.len(), "{said}");
    // Other syntaxes are turned into JSON by their parsers, and so are calls in other orders.
    let streams = matches!(
        case.template,
        HERMES | LLAMA | MISTRAL | HARMONY | PHI | NEMOTRON | GRANITE
    );
    for (call, whole) in got.calls.iter().zip(&whole.calls) {
        assert_eq!(call.0, whole.0, "{said}");
        assert!(!streams || whole.1.starts_with(&call.1), "{said}");
    }
}

/// What is known of a call when its answer is cut off.
#[test]
fn calls_cut_off_by_a_limit() {
    let whole =
        "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>";
    let second = format!("{whole}\n{whole}");
    let weather = |arguments: &str| ("weather".to_owned(), arguments.to_owned());
    let paris = weather("{\"city\": \"Paris\"}");
    for (text, calls) in [
        ("<", vec![]),
        ("<tool_call>\n{\"name\": \"wea", vec![]),
        ("<tool_call>\n{\"name\": \"weather\"", vec![weather("")]),
        (
            "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"ci",
            vec![weather("{\"ci")],
        ),
        (&whole[..whole.len() - 3], vec![paris.clone()]),
        (&second[..whole.len() + 2], vec![paris.clone()]),
        (&second[..whole.len() + 14], vec![paris.clone()]),
        (
            &second[..whole.len() + 33],
            vec![paris.clone(), weather("")],
        ),
    ] {
        for tool_choice in [
            ToolChoice::Auto,
            ToolChoice::Required,
            ToolChoice::Named("weather".into()),
        ] {
            let mut chat = chat(true);
            chat.tool_choice = tool_choice;
            let parser = OutputParser::new(Dialect::default(), &chat, Start::Content);
            let got = read_ended(parser, [text], FinishReason::Length);
            assert_eq!(got.content, "", "{text:?}");
            assert_eq!(got.calls, calls, "{text:?}");
        }
    }
}

#[test]
fn calls_that_were_not_offered_stay_text() {
    let text = "<tool_call>{\"name\": \"weather\", \"arguments\": {}}</tool_call>";
    let mut none = chat(true);
    none.tool_choice = ToolChoice::None;
    for chat in [Chat::default(), none] {
        let parser = OutputParser::new(Dialect::default(), &chat, Start::Content);
        assert_eq!(read(parser, [text]).content, text);
    }
    assert_eq!(
        read(OutputParser::plain(), ["<think>", text]).content,
        format!("<think>{text}")
    );
}

#[test]
fn arguments_are_passed_on_while_they_come() {
    let pieces = [
        "<tool_call>",
        "{\"name\": \"wea",
        "ther\", \"argu",
        "ments\": {\"ci",
        "ty\": \"Pa",
        "ris\"}",
        "}</tool_call>",
    ];
    let mut parser = OutputParser::new(Dialect::default(), &chat(true), Start::Content);
    let deltas: Vec<(Option<String>, String)> = pieces
        .iter()
        .map(|piece| match parser.push(piece).as_slice() {
            [] => (None, String::new()),
            [Piece::ToolCall(delta)] => (delta.name.clone(), delta.arguments.clone()),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [
        (None, ""),
        (None, ""),
        (None, ""),
        (Some("weather".to_owned()), "{\"ci"),
        (None, "ty\": \"Pa"),
        (None, "ris\"}"),
        (None, ""),
    ];
    assert_eq!(
        deltas,
        expected.map(|(name, arguments)| (name, arguments.to_owned()))
    );
    assert_eq!(parser.finish(FinishReason::Stop), []);
}

#[test]
fn content_is_passed_on_at_once() {
    let mut parser = OutputParser::new(Dialect::default(), &chat(true), Start::Content);
    for (piece, passed) in [
        ("Hel", "Hel"),
        ("lo ", "lo"),
        ("<to", ""),
        ("ad> x", " <toad> x"),
    ] {
        let content = |pieces: Vec<Piece>| match pieces.as_slice() {
            [] => String::new(),
            [Piece::Content(text)] => text.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(content(parser.push(piece)), passed);
    }
}

#[test]
fn reasoning_is_known_while_it_lasts() {
    let mut parser = OutputParser::new(Dialect::default(), &chat(true), Start::Content);
    assert!(!parser.in_reasoning());
    parser.push("<think>\nHm");
    assert!(parser.in_reasoning());
    parser.push("</think>");
    assert!(!parser.in_reasoning());
}

/// Pieces of markers and of calls, in any order.
fn noise() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => prop::sample::select(vec![
            "<think>", "</think>", "<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]", "<|python_tag|>",
            "<|channel|>", "<|message|>", "<|start|>", "<|end|>", "<|call|>", "analysis", "final", " to=functions.time",
            "<function=weather>", "</function>", "<parameter=city>", "</parameter>", "<arg_key>", "</arg_key>",
            "<arg_value>", "</arg_value>", "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>",
            "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "functools", "[weather(", ")]",
            "{\"name\": \"weather\", \"arguments\": {}}", "{\"name\": \"time\", \"parameters\": ", "{", "}", "[", "]",
            "\"", "\"name\": ", "\"arguments\": ", "weather", ": ", ", ", "\\", "\n", " ", "<", "x", "é", "; ",
        ]).prop_map(str::to_owned),
        1 => "\\PC{0,4}",
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

const TEMPLATES: [&str; 15] = [
    HERMES,
    LLAMA,
    MISTRAL,
    HARMONY,
    PHI,
    NEMOTRON,
    GRANITE,
    QWEN_CODER,
    GLM,
    KIMI,
    DEEPSEEK,
    DEEPSEEK_JSON,
    MINIMAX,
    PYTHONIC,
    LFM,
];

/// `text` in pieces of these lengths (characters), again and again.
fn cut<'a>(text: &'a str, lengths: &[usize]) -> Vec<&'a str> {
    let mut rest = text;
    let mut pieces = Vec::new();
    for length in lengths.iter().cycle() {
        let at = rest
            .char_indices()
            .nth(*length)
            .map_or(rest.len(), |(at, _)| at);
        let (piece, tail) = rest.split_at(at);
        pieces.push(piece);
        rest = tail;
        if rest.is_empty() {
            break;
        }
    }
    pieces
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn known_answers_however_they_are_cut(
        index in 0..CASES.len(), lengths in prop::collection::vec(1_usize..9, 1..12),
    ) {
        let case = &CASES[index];
        let got = read(parser(case), cut(case.text, &lengths));
        prop_assert!(same(&got, &expected(case)), "{got:?}");
    }

    #[test]
    fn noise_is_read_the_same_however_it_is_cut(
        text in noise(),
        template in prop::sample::select(TEMPLATES.to_vec()),
        lengths in prop::collection::vec(1_usize..9, 1..12),
        opened: bool,
        parallel: bool,
    ) {
        let start = if opened { Start::Reasoning } else { Start::Content };
        let parser = OutputParser::new(Dialect::detect(template), &chat(parallel), start);
        let whole = read(parser.clone(), [text.as_str()]);
        let pieces = read(parser, cut(&text, &lengths));
        prop_assert_eq!(whole, pieces);
    }

    #[test]
    fn nothing_is_lost(text in noise(), template in prop::sample::select(TEMPLATES.to_vec())) {
        // Without tools, text outside of reasoning comes back as it is, but for white space.
        prop_assume!(template != HARMONY);
        let parser = OutputParser::new(Dialect::detect(template), &Chat::default(), Start::Content);
        let got = read(parser, [text.as_str()]);
        let strip = |text: &str| -> String {
            text.replace("<think>", "").replace("</think>", "").split_whitespace().collect()
        };
        prop_assert_eq!(strip(&format!("{}{}", got.reasoning, got.content)), strip(&text));
    }
}
