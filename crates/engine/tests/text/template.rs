//! Chat templates that use what templates in the wild use, and templates that mean harm.

use engine::text::ChatTemplate;
use engine::{Chat, Error, Message, Tool, ToolCall, ToolChoice};
use proptest::prelude::*;
use serde_json::json;

pub(crate) const STARTER: &str = include_str!("../../../../tools/starter/template.jinja");

pub(crate) fn chat(messages: &[Message]) -> Chat {
    Chat {
        messages: messages.to_vec(),
        ..Chat::default()
    }
}

pub(crate) fn weather() -> Tool {
    Tool {
        name: "weather".into(),
        description: Some("Weather of a city".into()),
        parameters: Some(json!({
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        })),
    }
}

pub(crate) fn calling(name: &str, arguments: &str) -> Message {
    let mut message = Message::assistant("");
    message.tool_calls.push(ToolCall {
        id: "call_1".into(),
        name: name.into(),
        arguments: arguments.into(),
    });
    message
}

fn kwarg(mut chat: Chat, name: &str, value: serde_json::Value) -> Chat {
    chat.template_kwargs.insert(name.into(), value);
    chat
}

#[track_caller]
fn check(template: &str, chat: &Chat, expected: &str) {
    let template = ChatTemplate::new(template, "<s>", "</s>").unwrap();
    assert_eq!(template.render(chat).unwrap(), expected);
}

/// What the template makes of the single message "Hi".
#[track_caller]
fn check_hi(template: &str, expected: &str) {
    check(template, &chat(&[Message::user("Hi")]), expected);
}

#[test]
fn features_that_templates_use() {
    for (template, expected) in [
        // Loops and their variables.
        (
            "{% for x in [7, 8] %}{{ loop.index0 }}{{ loop.index }}{{ loop.first }}{{ loop.last }} {% endfor %}",
            "01TrueFalse 12FalseTrue ",
        ),
        (
            "{% for x in [1, 2, 3, 4] if x % 2 == 0 %}{{ x }};{% else %}none{% endfor %}",
            "2;4;",
        ),
        (
            "{% for x in [1, 2, 3] %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 3 %}{% break %}{% endif %}{{ x }}{% endfor %}",
            "1",
        ),
        (
            "{% for k, v in {'a': 1, 'b': [2]}.items() %}{{ k }}={{ v }} {% endfor %}",
            "a=1 b=[2] ",
        ),
        (
            "{% for m in messages %}{{ loop.previtem is undefined }}{{ loop.nextitem is defined }}{% endfor %}",
            "TrueFalse",
        ),
        // State that outlives a loop.
        (
            "{% set ns = namespace(n=0, text='') %}{% for x in 'abc' %}{% set ns.n = ns.n + 1 %}{% set ns.text = x ~ ns.text %}{% endfor %}{{ ns.n }}{{ ns.text }}",
            "3cba",
        ),
        // Slices.
        (
            "{{ [1, 2, 3][::-1] }}{{ [1, 2, 3][1:] }}{{ 'abc'[:-1] }}{{ messages[-1].content }}{{ messages[0]['role'] }}",
            "[3, 2, 1][2, 3]abHiuser",
        ),
        // Methods of Python's types.
        (
            "{{ ' x '.strip() }}|{{ 'xax'.lstrip('x') }}|{{ 'xax'.rstrip('x') }}|{{ 'a-b-c'.split('-') }}|{{ 'a-b'.split('-')[-1] }}",
            "x|ax|xa|['a', 'b', 'c']|b",
        ),
        (
            "{{ 'abc'.startswith('ab') }}{{ 'abc'.endswith('x') }}{{ 'Ab'.upper() }}{{ 'Ab'.lower() }}{{ 'aba'.replace('a', 'o') }}{{ 'ab'.title() }}",
            "TrueFalseABaboboAb",
        ),
        (
            "{{ {'a': 1}.get('a') }}{{ {'a': 1}.get('b', 'no') }}{{ {'a': 1}.keys() | list }}{{ ', '.join(['x', 'y']) }}{{ 'banana'.count('a') }}",
            "1no['a']x, y3",
        ),
        // Tests and filters.
        (
            "{{ x is defined }}{{ x is not defined }}{{ tools is none }}{{ 'a' is string }}{{ {} is mapping }}{{ [] is iterable }}{{ 1 is number }}{{ true is true }}{{ false is false }}",
            "FalseTrueTrueTrueTrueTrueTrueTrueTrue",
        ),
        (
            "{{ ' a ' | trim }}{{ [1, 2] | length }}{{ 'ab' | upper }}{{ [3, 1] | sort | first }}{{ x | default('d') }}{{ ['a', 'b'] | join('+') }}{{ 'a' | capitalize }}",
            "a2AB1da+bA",
        ),
        (
            "{{ messages | map(attribute='role') | list }}{{ messages | selectattr('role', 'equalto', 'user') | list | length }}{{ messages | rejectattr('role', 'equalto', 'user') | list | length }}",
            "['user']10",
        ),
        (
            "{{ 'user' in ['user'] }}{{ 'x' not in 'abc' }}{{ 1 if false else 2 }}{{ 7 // 2 }}{{ 2 ** 3 }}{{ 'a' ~ 1 }}{{ 'ab' * 2 }}",
            "TrueTrue238a1abab",
        ),
        // Values as Python prints them.
        (
            "{{ none }}{{ true }}{{ 1.0 }}{{ [none, 'it\\'s', \"q\"] }}{{ {'a': true} }}",
            "NoneTrue1.0[None, \"it's\", 'q']{'a': True}",
        ),
        // JSON as `json.dumps(..., ensure_ascii=False)` writes it.
        (
            "{{ {'a': [1, 2.5, none, true], 'b': '<é\"\\n>'} | tojson }}",
            "{\"a\": [1, 2.5, null, true], \"b\": \"<é\\\"\\n>\"}",
        ),
        (
            "{{ {'a': [1, {}], 'b': {}} | tojson(indent=2) }}",
            "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": {}\n}",
        ),
        (
            "{{ {'b': 1, 'a': 2} | tojson(separators=(',', ':'), sort_keys=true) }}",
            "{\"a\":2,\"b\":1}",
        ),
        // Macros, call blocks, white space.
        (
            "{% macro f(x, y='d') %}[{{ x }}{{ y }}]{% endmacro %}{{ f('a') }}{{ f('a', y='b') }}",
            "[ad][ab]",
        ),
        ("a\n  {%- if true %}\n  b\n  {%- endif %}\nc", "a  bc"),
        ("a\n  {% if true %}\n  b\n  {% endif %}\nc", "a\n  b\nc"),
        ("{#- gone -#} x {{- 'y' -}} z", "xyz"),
        // Marks of the assistant's text.
        (
            "{% generation %}x{% endgeneration %}{%- generation -%} y {%- endgeneration -%}",
            "xy",
        ),
        (
            "{{ bos_token }}{{ eos_token }}{{ add_generation_prompt }}",
            "<s></s>True",
        ),
        (
            "{{ strftime_now('%Y')[:2] }}{{ strftime_now('%d %b') | length }}",
            "206",
        ),
    ] {
        check_hi(template, expected);
    }
}

#[test]
fn refusals_reach_the_caller_in_the_templates_words() {
    let template = "{% if messages[0].role != 'user' %}{{ raise_exception('Only users may start, not ' ~ messages[0].role) }}{% endif %}ok";
    let template = ChatTemplate::new(template, "", "").unwrap();
    assert_eq!(template.render(&chat(&[Message::user("x")])).unwrap(), "ok");
    let error = template
        .render(&chat(&[calling("f", "{}"), Message::tool("call_1", "x")]))
        .unwrap_err();
    let Error::InvalidRequest { field, reason } = error else {
        panic!("{error}")
    };
    assert_eq!(field, "messages");
    assert!(
        reason.ends_with("Only users may start, not assistant"),
        "{reason}"
    );
    assert!(template.render(&chat(&[])).is_err());
}

#[test]
fn templates_that_are_not_jinja() {
    for source in [
        "{% if %}",
        "{{ ",
        "{% for x in %}{% endfor %}",
        "{{ x | unknown_filter }}",
        "{% endif %}",
    ] {
        match ChatTemplate::new(source, "", "") {
            Err(error) => assert!(error.to_string().contains("not valid Jinja"), "{error}"),
            // An unknown filter is only known when it is used.
            Ok(template) => {
                assert!(
                    template.render(&chat(&[Message::user("x")])).is_err(),
                    "{source}"
                );
            }
        }
    }
    assert!(ChatTemplate::new(&"x".repeat(2 << 20), "", "").is_err());
}

#[test]
fn the_starter_template_shows_everything() {
    let template = ChatTemplate::new(STARTER, "", "<|im_end|>").unwrap();
    assert!(template.knows_tools());
    assert!(template.knows_reasoning());
    check(
        STARTER,
        &chat(&[Message::user("Hi")]),
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    );
    let quiet = kwarg(
        chat(&[Message::system("Be brief."), Message::user("Hi")]),
        "enable_thinking",
        false.into(),
    );
    check(
        STARTER,
        &quiet,
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
    );
    let mut thought = Message::assistant("4");
    thought.reasoning = Some("2 + 2".into());
    let mut parallel = calling("weather", r#"{"city": "Köln"}"#);
    parallel.content = "I look.".into();
    parallel.tool_calls.push(ToolCall {
        id: "b".into(),
        name: "weather".into(),
        arguments: "{}".into(),
    });
    let mut history = chat(&[
        Message::system("S"),
        Message::user("2 + 2?"),
        thought,
        Message::user("Weather?"),
        parallel,
        Message::tool("call_1", "rain"),
        Message::tool("b", "sun"),
    ]);
    history.tools.push(weather());
    let text = template.render(&history).unwrap();
    let expected_end = "<|im_start|>user\n2 + 2?<|im_end|>\n<|im_start|>assistant\n4<|im_end|>\n<|im_start|>user\nWeather?<|im_end|>\n<|im_start|>assistant\nI look.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Köln\"}}\n</tool_call>\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {}}\n</tool_call><|im_end|>\n<|im_start|>user\n<tool_response>\nrain\n</tool_response>\n<tool_response>\nsun\n</tool_response><|im_end|>\n<|im_start|>assistant\n";
    assert!(text.ends_with(expected_end), "{text}");
    let tool = "{\"type\": \"function\", \"function\": {\"name\": \"weather\", \"description\": \"Weather of a city\", \"parameters\": {\"type\": \"object\", \"properties\": {\"city\": {\"type\": \"string\"}}, \"required\": [\"city\"]}}}\n</tools>";
    assert!(
        text.starts_with("<|im_start|>system\nS\n\n# Tools") && text.contains(tool),
        "{text}"
    );
    history.tool_choice = ToolChoice::None;
    assert!(!template.render(&history).unwrap().contains("# Tools"));
}

#[test]
fn reasoning_is_shown_only_in_the_running_turn() {
    let mut thought = calling("weather", "{}");
    thought.reasoning = Some("I should look".into());
    let running = chat(&[
        Message::user("x"),
        thought.clone(),
        Message::tool("call_1", "rain"),
    ]);
    let template = ChatTemplate::new(STARTER, "", "").unwrap();
    let shown = "<think>\nI should look\n</think>";
    assert!(template.render(&running).unwrap().contains(shown));
    let over = chat(&[
        Message::user("x"),
        thought,
        Message::tool("call_1", "rain"),
        Message::user("y"),
    ]);
    assert!(!template.render(&over).unwrap().contains(shown));
}

#[test]
fn an_open_answer_is_continued() {
    let open = chat(&[Message::user("Hi"), Message::assistant("Hello, I")]);
    check(
        STARTER,
        &open,
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello, I",
    );
    let closed = kwarg(open.clone(), "continue_final_message", false.into());
    check(
        STARTER,
        &closed,
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello, I<|im_end|>\n<|im_start|>assistant\n",
    );
    // A prompt that opens reasoning: it is closed before the content.
    check(
        "{{ messages[0].content }}\n<think>\n",
        &open,
        "Hi\n<think>\n</think>\n\nHello, I",
    );
}

#[test]
fn what_a_template_cannot_show_is_written_as_text() {
    let alternating = "{% for m in messages %}{% if m.role not in ['user', 'assistant'] %}{{ raise_exception('no ' ~ m.role) }}{% endif %}[{{ m.role }}]{{ m.content }}{% endfor %}";
    let template = ChatTemplate::new(alternating, "", "").unwrap();
    assert!(!template.knows_tools());
    check(
        alternating,
        &chat(&[Message::system("S"), Message::user("U")]),
        "[user]S\n\nU",
    );
    let mut tools = chat(&[
        Message::user("U"),
        calling("weather", "{\"city\": \"Rome\"}"),
        Message::tool("call_1", "sun"),
        Message::tool("call_1", "rain"),
    ]);
    tools.tools.push(weather());
    let text = template.render(&tools).unwrap();
    assert!(
        text.contains("<tools>") && text.contains("\"weather\"") && text.contains("at most one"),
        "{text}"
    );
    let end = "[assistant]<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Rome\"}}\n</tool_call>[user]<tool_response>\nsun\n</tool_response>\n<tool_response>\nrain\n</tool_response>";
    assert!(text.ends_with(end), "{text}");
}

#[test]
fn templates_get_calls_in_the_form_they_want() {
    let history = |template: &str| {
        let mut chat = chat(&[
            Message::user("U"),
            calling("weather", "{\"city\": \"Rome\"}"),
            Message::tool("call_1", "sun"),
        ]);
        chat.tools.push(weather());
        ChatTemplate::new(template, "", "")
            .unwrap()
            .render(&chat)
            .unwrap()
    };
    const TOOLS: &str = "{% for t in tools or [] %}{{ t.function.name }};{% endfor %}";
    // Objects.
    let object = "{% for m in messages %}{% for c in m.tool_calls or [] %}{% for k, v in c.function.arguments.items() %}{{ k }}:{{ v }}{% endfor %}{% endfor %}{% endfor %}";
    assert_eq!(history(&format!("{TOOLS}{object}")), "weather;city:Rome");
    // Text.
    let text = "{% for m in messages %}{% for c in m.tool_calls or [] %}{{ c.function.name + c.function.arguments }}{% endfor %}{% endfor %}";
    assert_eq!(
        history(&format!("{TOOLS}{text}")),
        "weather;weather{\"city\": \"Rome\"}"
    );
    // Null instead of empty content.
    let null = "{% for m in messages %}{% if m.content is none %}{{ m.tool_calls[0].function.arguments | tojson }}{% endif %}{% endfor %}";
    assert_eq!(
        history(&format!("{TOOLS}{null}")),
        "weather;{\"city\": \"Rome\"}"
    );
    // Identifiers of nine characters, the same for call and result.
    let ids = "{% for m in messages %}{% if m.tool_calls %}{% if m.tool_calls[0].id | length != 9 %}{{ raise_exception('id') }}{% endif %}{{ m.tool_calls[0].id }}{{ m.tool_calls[0].function.arguments }}{% elif m.tool_call_id %}{{ m.tool_call_id }}{{ m.name }}{% endif %}{% endfor %}";
    let text = history(&format!("{TOOLS}{ids}"));
    let (id, rest) = text["weather;".len()..].split_at(9);
    assert_eq!(rest, format!("{{'city': 'Rome'}}{id}weather"));
}

#[test]
fn variables_of_the_request_reach_the_template_but_replace_nothing() {
    let chat = kwarg(
        chat(&[Message::user("Hi")]),
        "mood",
        json!({"now": ["good"]}),
    );
    let chat = kwarg(chat, "messages", json!("hijacked"));
    check(
        "{{ mood.now[0] }} {{ messages[0].content }}",
        &chat,
        "good Hi",
    );
}

/// Every one of these must end, soon and with an error, and take no memory to speak of.
#[test]
fn harmful_templates_end_with_an_error() {
    let deep_list = format!("{{{{ {}1{} }}}}", "[".repeat(5000), "]".repeat(5000));
    let deep_groups = format!("{{{{ {}1{} }}}}", "(".repeat(5000), ")".repeat(5000));
    let deep_blocks = format!(
        "{}{}",
        "{% if true %}".repeat(5000),
        "{% endif %}".repeat(5000)
    );
    let long_chain = format!("{{{{ 1{} }}}}", "+1".repeat(100_000));
    let not_chain = format!("{{{{ {} true }}}}", "not ".repeat(50_000));
    let minus_chain = format!("{{{{ {} 1 }}}}", "-".repeat(50_000));
    let attributes = format!("{{{{ messages{} }}}}", ".a".repeat(50_000));
    let filters = format!("{{{{ 'a'{} }}}}", " | upper".repeat(50_000));
    let nested_loops = format!(
        "{}x{}",
        "{% for a in range(1000) %}".repeat(8),
        "{% endfor %}".repeat(8)
    );
    let doubling = format!(
        "{{% set x = 'xxxxxxxxxxxxxxxx' %}}{}{{{{ x }}}}",
        "{% set x = x ~ x %}".repeat(64)
    );
    let shared_nesting = format!(
        "{{% set x = [1] %}}{}{{{{ x }}}}",
        "{% set x = [x, x] %}".repeat(40)
    );
    let shared_json = format!(
        "{{% set x = [1] %}}{}{{{{ x | tojson }}}}",
        "{% set x = [x, x] %}".repeat(40)
    );
    let sources = [
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
        "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
        "{{ range(10000000000) | list }}",
        "{{ 'x' * 10000000000 }}",
        "{{ 'x' * 99999999 ~ 'x' * 99999999 ~ 'x' * 99999999 ~ 'x' * 99999999 }}",
        "{{ [1] * 10000000000 }}",
        "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
        "{% macro f(x) %}{{ f(x) }}{{ f(x) }}{% endmacro %}{{ f(1) }}",
        "{% for x in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}",
        "{% include 'chat' %}",
        "{% extends 'chat' %}",
        "{% import 'chat' as x %}",
        "{% set ns = namespace(x='xxxxxxxxxxxxxxxxxxxx') %}{% for a in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for a in range(200) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x | tojson }}",
        "{% set ns = namespace(x=[1]) %}{% for a in range(100000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
        "{% set ns = namespace(x=[1]) %}{% for a in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | tojson(indent=16) }}",
        "{{ 'x'.replace('', 'y' * 1000000).replace('y', 'z' * 1000000) }}",
        "{{ ('x' * 100000).split('') | join('y' * 1000000) }}",
        "{{ 'x' | indent(1000000000) }}",
        "{{ '%1000000000d' | format(1) }}",
        "{{ 'x'.center(1000000000) }}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ messages | batch(0) | list }}",
        "{{ messages | slice(1000000000) | list }}",
        "{{ messages | batch(1000000000, 'x') | list }}",
        &deep_list,
        &deep_groups,
        &deep_blocks,
        &long_chain,
        &not_chain,
        &minus_chain,
        &attributes,
        &filters,
        &nested_loops,
        &doubling,
        &shared_nesting,
        &shared_json,
    ];
    for source in sources {
        let shown = &source[..source.len().min(90)];
        let Ok(template) = ChatTemplate::new(source, "", "") else {
            continue;
        };
        match template.render(&chat(&[Message::user("x")])) {
            Err(Error::InvalidRequest { .. }) => {}
            Err(other) => panic!("{shown}: {other}"),
            // Some are no harm at all; then there is not much text.
            Ok(text) => assert!(text.len() < 1 << 20, "{shown}: {} bytes", text.len()),
        }
    }
}

#[test]
fn a_template_that_never_ends_is_given_up() {
    let doubled = format!(
        "{{% set x = [1] %}}{}{{{{ x }}}}",
        "{% set x = x + x %}".repeat(64)
    );
    let error = ChatTemplate::new(&doubled, "", "").unwrap_err();
    assert!(error.to_string().contains("too much work"), "{error}");
}

/// What the first conversation does not show, a later one meets.
#[test]
fn a_rendering_that_never_ends_is_given_up() {
    let late = format!(
        "{{% if messages | length > 2 %}}{{% set x = [1] %}}{}{{{{ x }}}}{{% endif %}}{{{{ messages[0].content }}}}",
        "{% set x = x + x %}".repeat(64)
    );
    let template = ChatTemplate::new(&late, "", "").unwrap();
    let short = chat(&[Message::user("x")]);
    let long = chat(&["a", "b", "c"].map(Message::user));
    for _ in 0..2 {
        assert_eq!(template.render(&short).unwrap(), "x");
        match template.render(&long) {
            Err(Error::InvalidRequest { field, reason }) => {
                assert_eq!(field, "messages");
                assert!(reason.contains("too much work"), "{reason}");
            }
            other => panic!("{other:?}"),
        }
    }
    // Both keep a core busy: no more of them.
    let error = template.render(&short).unwrap_err().to_string();
    assert!(error.contains("earlier conversations"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_template_source_panics(source in source()) {
        if let Ok(template) = ChatTemplate::new(&source, "<s>", "</s>") {
            let _ = template.render(&chat(&[Message::system("S"), Message::user("U")]));
        }
    }

    #[test]
    fn no_message_breaks_the_starter_template(contents in prop::collection::vec(".{0,40}", 1..6)) {
        let template = ChatTemplate::new(STARTER, "", "").unwrap();
        let messages: Vec<Message> = contents.iter().map(Message::user).collect();
        let text = template.render(&chat(&messages)).unwrap();
        for content in &contents {
            prop_assert!(text.contains(content.as_str()), "{content:?} is not in {text:?}");
        }
    }
}

/// Pieces of templates in any order.
fn source() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "{{ ",
            " }}",
            "{% ",
            " %}",
            "{%- ",
            " -%}",
            "{# ",
            " #}",
            "for x in ",
            "messages",
            "if ",
            "else",
            "endif",
            "endfor",
            "set x = ",
            "macro f(a) ",
            "endmacro",
            "f(1)",
            ".content",
            "[0]",
            "[::-1]",
            "| tojson",
            "| trim",
            "namespace(a=1)",
            "x",
            " == ",
            "'a'",
            "1",
            " in ",
            " is defined",
            "loop.index0",
            ".split('a')",
            "(",
            ")",
            "[",
            "]",
            "{",
            "}",
            ", ",
            "~",
            "raise_exception('no')",
            "strftime_now('%d')",
            "generation",
            "endgeneration",
            "\n",
            "\\",
            "é",
        ])
        .prop_map(str::to_owned),
        ".{0,6}",
    ];
    prop::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}
