//! What every Rust file owes its reader: an opening `//!`, and no `unsafe` outside `llama` and the
//! listed files.

use super::Finding;
use super::exceptions::{self, Exceptions};
use super::tokens;
use super::tree::SourceFile;

/// The one crate that may hold `unsafe`.
const UNSAFE_CRATE: &str = "crates/llama/";

pub(super) fn check(files: &[SourceFile], exceptions: &Exceptions) -> Vec<Finding> {
    let rust = files.iter().filter(|file| file.is_rust());
    let mut findings: Vec<Finding> = rust.flat_map(|file| check_file(file, exceptions)).collect();
    let stale = exceptions.unsafe_code.keys().filter(|path| {
        let file = files.iter().find(|file| file.path == **path);
        file.is_none_or(|file| unsafe_lines(file).is_empty())
    });
    findings.extend(stale.map(|path| {
        let message = format!("{path} holds no `unsafe` and needs no exception any more");
        Finding::file(exceptions::PATH, message)
    }));
    findings
}

/// None for a file that is no Rust; the check for dead files reports those.
fn unsafe_lines(file: &SourceFile) -> Vec<usize> {
    tokens::read(&file.text)
        .map(|facts| facts.unsafe_lines)
        .unwrap_or_default()
}

fn check_file(file: &SourceFile, exceptions: &Exceptions) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !file.is_test() && !opens_with_docs(&file.text) {
        let message =
            "does not open with `//!`; hint: say what the module owns and what it does not";
        findings.push(Finding::at(&file.path, 1, message));
    }
    let is_listed = exceptions.unsafe_code.contains_key(&file.path);
    if !file.path.starts_with(UNSAFE_CRATE) && !is_listed {
        findings.extend(unsafe_lines(file).into_iter().map(|line| {
            Finding::at(
                &file.path,
                line,
                format!("`unsafe` outside {UNSAFE_CRATE}; hint: wrap it there"),
            )
        }));
    }
    findings
}

fn opens_with_docs(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .next()
        .is_some_and(|line| line.starts_with("//!") || line.starts_with("#![doc = include_str!"))
}

#[cfg(test)]
mod tests {
    use super::super::tree::samples::file;
    use super::*;

    fn messages(path: &str, text: &str) -> Vec<String> {
        check(&[file(path, text)], &Exceptions::default())
            .iter()
            .map(|finding| finding.to_string().chars().take(30).collect())
            .collect()
    }

    #[test]
    fn wants_an_opening() {
        assert!(messages("crates/a/src/b.rs", "\n//! Owns b.\nfn b() {}\n").is_empty());
        assert_eq!(
            messages("crates/a/src/b.rs", "fn b() {}\n"),
            ["crates/a/src/b.rs:1: does not "]
        );
        assert!(messages("crates/a/tests/b.rs", "fn b() {}\n").is_empty());
    }

    #[test]
    fn wants_unsafe_in_one_place() {
        let text = "//! Owns b.\nfn b() {\n    unsafe { c() }\n}\n";
        assert_eq!(
            messages("crates/a/tests/b.rs", text),
            ["crates/a/tests/b.rs:3: `unsafe"]
        );
        assert!(messages("crates/llama/src/b.rs", text).is_empty());
    }

    #[test]
    fn knows_listed_unsafe_and_reports_stale_entries() {
        let exceptions = Exceptions {
            unsafe_code: [("crates/a/src/b.rs".to_owned(), "one call".to_owned())].into(),
            ..Exceptions::default()
        };
        let count = |text: &str| check(&[file("crates/a/src/b.rs", text)], &exceptions).len();
        assert_eq!(count("//! Owns b.\nfn b() {\n    unsafe { c() }\n}\n"), 0);
        assert_eq!(count("//! Owns b.\nfn b() {}\n"), 1);
        assert_eq!(check(&[], &exceptions).len(), 1);
    }
}
