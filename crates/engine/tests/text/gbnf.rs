//! GBNF grammars: what they allow, and what is wrong with them and where.

use engine::text::gbnf::Automaton;
use engine::{Error, Format, TokenId};
use proptest::prelude::*;

use crate::constraint::Model;

const ARITHMETIC: &str = r#"
# Expressions, one a line.
root   ::= (expr "=" ws term "\n")+
expr   ::= term ([-+*/] term)*
term   ::= ident | num | "(" ws expr ")" ws
ident  ::= [a-z] [a-z0-9_]* ws
num    ::= [0-9]+ ws
ws     ::= [ \t\n]*
"#;

const JSON: &str = r#"
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws ( string ":" ws value ("," ws string ":" ws value)* )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws     ::= | " " | "\n" [ \t]{0,20}
"#;

const LIST: &str = "root ::= item+\n# A line of a list.\nitem ::= \"- \" [^\\r\\n\\x0b\\x0c\\x85\\u2028\\u2029]+ \"\\n\"\n";

const CHESS: &str = r#"
root ::= ("1. " move " " move "\n" ([1-9] [0-9]? ". " move " " move "\n")*)
move ::= (pawn | piece | castle) [+#]?
piece ::= [NBKQR] [1-8]? [a-h]? "x"? [a-h] [1-8]
pawn ::= ([a-h] "x")? [a-h] [1-8] ("=" [NBKQR])?
castle ::= "O-O" "-O"?
"#;

/// Whether `text` is a whole text of the grammar, byte by byte.
fn fits(model: &Model, grammar: &str, text: &str) -> bool {
    let mut state = model
        .format(&Format::Grammar(grammar.into()))
        .unwrap()
        .start();
    text.bytes().all(|byte| {
        let token = TokenId::from(byte);
        let allowed = state.allows(token);
        assert_eq!(state.accept(token).is_ok(), allowed);
        allowed
    }) && state.is_accepting()
}

#[test]
fn texts_that_fit_and_texts_that_do_not() {
    let model = Model::new();
    for (grammar, yes, no) in [
        (
            ARITHMETIC,
            &["1=2\n", "a_1 +(b*3) = 4\nx=y\n"][..],
            &["", "1=2", "=1\n", "1++2=3\n", "(1=2\n"][..],
        ),
        (
            JSON,
            &[
                "{}",
                "{\"a\": [1, -2.5e+3, {\"b\": null}], \"ü\": \"\\u00e9\\n\"}",
            ],
            &["[]", "{\"a\" 1}", "{\"a\": \"\n\"}", "{,}", "{\"a\": 01}"],
        ),
        (
            LIST,
            &["- a\n", "- one – two\n- 3\n"],
            &["- \n", "a\n", "- a", "- a\u{2028}\n"],
        ),
        (
            CHESS,
            &["1. e4 e5\n", "1. Nf3 d5\n2. O-O-O exd6=Q+\n"],
            &["1. e9 e5\n", "2. e4 e5\n", "1. e4\n"],
        ),
        ("root ::= \"a\"{3}", &["aaa"], &["aa", "aaaa"]),
        ("root ::= \"a\"{2,}", &["aa", "aaaaaa"], &["a", ""]),
        ("root ::= \"a\"{1,3}", &["a", "aaa"], &["", "aaaa"]),
        ("root ::= \"a\"{,2}", &["", "aa"], &["aaa"]),
        (
            "root ::= (\"ab\" | \"c\"?)* \"d\"",
            &["d", "abcabd", "cccd"],
            &["", "ad"],
        ),
        ("root ::= .", &["a", "é", "👍", "\n"], &["", "ab"]),
        ("root ::= [^a]", &["b", "é", "]"], &["a", ""]),
        ("root ::= [a\\-z\\]]+", &["a-z]"], &["b"]),
        ("root ::= [-a]+ [a-]", &["-a-"], &["-b"]),
        ("root ::= [α-ωé]+", &["αβωé"], &["a", "ώx"]),
        (
            "root ::= \"\\x41\\u00e9\\U0001F44D\\\\\\\"\"",
            &["Aé👍\\\""],
            &["A"],
        ),
        ("root ::= \"\"", &[""], &["a"]),
        (
            "root ::=\n  \"a\" |\n  \"b\"\n\n\nx-Y_1 ::= \"c\"",
            &["a", "b"],
            &["c"],
        ),
        (
            "root ::= a b\na ::= \"x\"?\nb ::= (a \"y\")+",
            &["xy", "xxy", "yxy"],
            &["x", ""],
        ),
        ("root ::= \"a\" # not \"b\"\r\n", &["a"], &["ab"]),
        (
            "root ::= (\"a\"*)* ((\"b\"?)+)?",
            &["", "aab", "bb"],
            &["ba"],
        ),
    ] {
        for text in yes {
            assert!(fits(&model, grammar, text), "{grammar} must take {text:?}");
        }
        for text in no {
            assert!(
                !fits(&model, grammar, text),
                "{grammar} must refuse {text:?}"
            );
        }
    }
}

#[test]
fn random_answers_fit() {
    let model = Model::new();
    for grammar in [
        ARITHMETIC,
        JSON,
        LIST,
        CHESS,
        "root ::= .*",
        "root ::= [^\\x00-\\x7f]{3,9}",
        "root ::= (\"é\" | \"ü\")* \"日本\"",
    ] {
        let constraint = model.format(&Format::Grammar(grammar.into())).unwrap();
        for seed in 0..10 {
            let text = model.walk(&constraint, seed);
            assert!(fits(&model, grammar, &text), "{grammar}: {text:?}");
            if grammar == JSON {
                // Numbers may be larger than any that serde_json keeps.
                serde_json::from_str::<serde::de::IgnoredAny>(&text)
                    .unwrap_or_else(|error| panic!("{error}: {text}"));
            }
        }
    }
}

#[test]
fn errors_say_where_they_are() {
    for (grammar, place, reason) in [
        ("", "1:1", "no rule named `root`"),
        ("other ::= \"a\"", "1:1", "no rule named `root`"),
        ("root ::= missing", "1:10", "`missing` is not defined"),
        ("root ::= \"a\n", "1:12", "not closed"),
        ("root ::= \"a\"\nx ::= [a", "2:9", "not closed"),
        ("root ::= (\"a\"", "1:14", "expected `)`"),
        ("root ::= \"a\")", "1:13", "unexpected `)`"),
        ("root = \"a\"", "1:6", "expected `::=`"),
        ("root ::= \"a\"\nroot ::= \"b\"", "2:1", "defined twice"),
        ("root ::= \"é\" ?? *\n?", "2:1", "expected a rule's name"),
        ("root ::= \"é\" \"\\q\"", "1:16", "unknown escape"),
        ("root ::= \"\\u12\"", "1:12", "hexadecimal"),
        ("root ::= \"\\ud800\"", "1:12", "hexadecimal"),
        ("root ::= [z-a]", "1:14", "ends before it starts"),
        ("root ::= \"a\"{3,1}", "1:17", "smaller"),
        ("root ::= \"a\"{}", "1:14", "expected a number"),
        ("root ::= \"a\"{2001}", "1:14", "2000"),
        ("root ::= \"a\"{99999999999}", "1:14", "2000"),
        ("root ::= <think>", "1:10", "not supported"),
        ("root ::= root \"a\" | \"b\"", "1:1", "left recursion"),
        (
            "root ::= a\na ::= \"\"? b\nb ::= a \"x\" | \"y\"",
            "1:1",
            "left recursion",
        ),
        ("root ::= (\"x\"? root)* \"y\"", "1:1", "left recursion"),
    ] {
        let error = Automaton::new(grammar).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("{place}: ")) && error.contains(reason),
            "{grammar:?}: {error}"
        );
        let error = Model::new()
            .format(&Format::Grammar(grammar.into()))
            .unwrap_err();
        assert!(
            matches!(&error, Error::InvalidRequest { field, .. } if field == "grammar"),
            "{error}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_grammar_panics(source in source()) {
        let model = Model::new();
        if let Ok(constraint) = model.format(&Format::Grammar(source)) {
            let mut state = constraint.start();
            let mut logits = vec![0.0; model.bytes.len()];
            // It may be too ambiguous; that is an error and no more.
            if state.mask(&mut logits).is_ok()
                && let Some(token) = logits.iter().position(|logit| *logit == 0.0)
            {
                let _ = state.accept(token as TokenId);
                let _ = state.mask(&mut logits);
            }
        }
    }

    #[test]
    fn no_text_panics(source in "\\PC{0,60}") {
        let _ = Automaton::new(&source);
        let _ = Automaton::new(&format!("root ::= {source}"));
    }
}

/// Pieces of grammars in any order.
fn source() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        8 => prop::sample::select(vec![
            "root ::= ", "a ::= ", "b ::= ", "a", "b", "\n", " | ", "(", ")", "*", "+", "?", "{2}", "{0,3}", "{1,}",
            "\"x\"", "\"\"", "\"é\"", "[a-z]", "[^a]", ".", "\\x41", "[", "]", "\"", "# c\n", " ", "{", "}", "<", "root",
        ]).prop_map(str::to_owned),
        1 => "\\PC{0,3}",
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| format!("root ::= {}", pieces.concat()))
}
