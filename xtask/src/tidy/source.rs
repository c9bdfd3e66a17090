//! What every Rust file owes its reader: an opening `//!`, and no `unsafe` outside `llama`.

use super::Finding;
use super::tokens;
use super::tree::SourceFile;

/// The one crate that may hold `unsafe`.
const UNSAFE_CRATE: &str = "crates/llama/";

pub(super) fn check(files: &[SourceFile]) -> Vec<Finding> {
    files
        .iter()
        .filter(|file| file.is_rust())
        .flat_map(check_file)
        .collect()
}

fn check_file(file: &SourceFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !file.is_test() && !opens_with_docs(&file.text) {
        let message =
            "does not open with `//!`; hint: say what the module owns and what it does not";
        findings.push(Finding::at(&file.path, 1, message));
    }
    if !file.path.starts_with(UNSAFE_CRATE) {
        // A file that is no Rust is reported by the check for dead files.
        let lines = tokens::read(&file.text)
            .map(|facts| facts.unsafe_lines)
            .unwrap_or_default();
        findings.extend(lines.into_iter().map(|line| {
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
        check(&[file(path, text)])
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
}
