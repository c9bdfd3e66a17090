//! What the checks need to know of a Rust file, read from its tokens: comments and strings
//! cannot be mistaken for code. Knows nothing of rules.

use anyhow::{Result, anyhow};
use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// A `mod name;` declaration or an `include!("path")`: another file that belongs to this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FileReference {
    /// `mod name;`, inside the inline modules `inline`.
    Module { inline: Vec<String>, name: String },
    /// `#[path = "…"] mod name;` or `include!("…")`, relative to the folder of the file.
    Path(String),
}

/// Facts about one Rust file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) references: Vec<FileReference>,
    /// Lines with the keyword `unsafe`, counted from 1.
    pub(super) unsafe_lines: Vec<usize>,
    /// How many lines belong to inline `#[cfg(test)]` modules.
    pub(super) test_line_count: usize,
}

/// Reads the facts of one file.
///
/// # Errors
/// When the text is not made of Rust tokens.
pub(super) fn read(text: &str) -> Result<Facts> {
    let stream: TokenStream = text.parse().map_err(|error| anyhow!("not Rust: {error}"))?;
    let mut facts = Facts::default();
    walk(stream, &mut Vec::new(), &mut facts);
    Ok(facts)
}

/// Attributes seen since the last item ended.
#[derive(Default)]
struct Pending {
    path: Option<String>,
    /// Line of a `#[cfg(test)]`.
    test_line: Option<usize>,
}

fn walk(stream: TokenStream, inline: &mut Vec<String>, facts: &mut Facts) {
    let tokens: Vec<TokenTree> = stream.into_iter().collect();
    let mut pending = Pending::default();
    let mut index = 0;
    while index < tokens.len() {
        let rest = &tokens[index..];
        index += match rest {
            [TokenTree::Punct(hash), TokenTree::Group(group), ..] if hash.as_char() == '#' => {
                note_attribute(group, hash.span().start().line, &mut pending);
                2
            }
            [TokenTree::Ident(word), TokenTree::Ident(name), after, ..] if word == "mod" => {
                let used = walk_module(&name.to_string(), after, inline, &mut pending, facts);
                pending = Pending::default();
                used
            }
            [
                TokenTree::Ident(word),
                TokenTree::Punct(bang),
                TokenTree::Group(group),
                ..,
            ] if word == "include" && bang.as_char() == '!' => {
                facts
                    .references
                    .extend(only_string(group.stream()).map(FileReference::Path));
                3
            }
            [TokenTree::Ident(word), ..] => {
                if word == "unsafe" {
                    facts.unsafe_lines.push(word.span().start().line);
                }
                1
            }
            [TokenTree::Group(group), ..] => {
                walk(group.stream(), inline, facts);
                if group.delimiter() == Delimiter::Brace {
                    pending = Pending::default();
                }
                1
            }
            [TokenTree::Punct(punct), ..] => {
                if punct.as_char() == ';' {
                    pending = Pending::default();
                }
                1
            }
            _ => 1,
        };
    }
}

/// Handles `mod name` followed by `after`; returns how many tokens it took.
fn walk_module(
    name: &str,
    after: &TokenTree,
    inline: &mut Vec<String>,
    pending: &mut Pending,
    facts: &mut Facts,
) -> usize {
    match after {
        TokenTree::Punct(end) if end.as_char() == ';' => {
            facts.references.push(match pending.path.take() {
                Some(path) => FileReference::Path(path),
                None => FileReference::Module {
                    inline: inline.clone(),
                    name: name.to_owned(),
                },
            });
            3
        }
        TokenTree::Group(body) => {
            if let Some(first) = pending.test_line {
                facts.test_line_count += body.span_close().end().line.saturating_sub(first) + 1;
            }
            inline.push(name.to_owned());
            walk(body.stream(), inline, facts);
            inline.pop();
            3
        }
        _ => 2,
    }
}

fn note_attribute(group: &Group, line: usize, pending: &mut Pending) {
    let tokens: Vec<TokenTree> = group.stream().into_iter().collect();
    match tokens.as_slice() {
        [
            TokenTree::Ident(name),
            TokenTree::Punct(_),
            TokenTree::Literal(value),
        ] if name == "path" => {
            pending.path = string_value(&value.to_string());
        }
        [TokenTree::Ident(name), TokenTree::Group(condition)]
            if name == "cfg" && condition.stream().to_string() == "test" =>
        {
            pending.test_line = Some(line);
        }
        _ => {}
    }
}

fn only_string(stream: TokenStream) -> Option<String> {
    match stream.into_iter().collect::<Vec<_>>().as_slice() {
        [TokenTree::Literal(value)] => string_value(&value.to_string()),
        _ => None,
    }
}

/// The value of a plain string literal without escapes, which is what a path is written as.
fn string_value(literal: &str) -> Option<String> {
    literal
        .strip_prefix('"')?
        .strip_suffix('"')
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(inline: &[&str], name: &str) -> FileReference {
        FileReference::Module {
            inline: inline.iter().map(|part| (*part).to_owned()).collect(),
            name: name.to_owned(),
        }
    }

    #[test]
    fn finds_modules_in_code_only() {
        let facts = read(
            "//! mod comment;\nmod one;\npub(crate) mod two { mod three; }\nconst A: &str = \"mod no;\";\n\
             #[path = \"other.rs\"]\nmod four;\ninclude!(\"table.rs\");\ncfg_if! { if #[cfg(x)] { mod five; } }",
        )
        .unwrap();
        assert_eq!(
            facts.references,
            [
                module(&[], "one"),
                module(&["two"], "three"),
                FileReference::Path("other.rs".into()),
                FileReference::Path("table.rs".into()),
                module(&[], "five"),
            ]
        );
    }

    #[test]
    fn finds_the_keyword_but_not_the_word() {
        let facts =
            read("// unsafe\nlet a = \"unsafe\";\nlet unsafe_code = 1;\nunsafe { f() }\n").unwrap();
        assert_eq!(facts.unsafe_lines, [4]);
    }

    #[test]
    fn counts_the_lines_of_inline_tests() {
        let facts = read(
            "fn a() {}\n\n#[cfg(test)]\nmod tests {\n    #[test]\n    fn b() {}\n}\nmod c {\n}\n",
        )
        .unwrap();
        assert_eq!(facts.test_line_count, 5);
    }

    #[test]
    fn refuses_what_is_not_rust() {
        assert!(read("fn a( {").is_err());
    }
}
