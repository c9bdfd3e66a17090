//! How long a file may be. Tests are not counted, whether in files of their own or inline.

use super::Finding;
use super::exceptions::{self, Exceptions};
use super::tokens;
use super::tree::SourceFile;

/// A file that is longer owns more than one thing; the house aims at 400.
const LINES_MAX: usize = 600;

/// Languages that people write by hand here.
const SOURCE_ENDINGS: [&str; 5] = [".rs", ".py", ".js", ".ts", ".sh"];

pub(super) fn check(files: &[SourceFile], exceptions: &Exceptions) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files
        .iter()
        .filter(|file| is_source(file) && !file.is_test())
    {
        let lines = counted_lines(file);
        match (lines > LINES_MAX, exceptions.size.contains_key(&file.path)) {
            (true, false) => findings.push(Finding::file(
                &file.path,
                format!("{lines} lines, over {LINES_MAX}; hint: split it by the state it owns"),
            )),
            (false, true) => findings.push(Finding::file(
                exceptions::PATH,
                format!(
                    "{} has {lines} lines and needs no exception any more",
                    file.path
                ),
            )),
            _ => {}
        }
    }
    for path in exceptions
        .size
        .keys()
        .filter(|path| !files.iter().any(|file| file.path == **path))
    {
        findings.push(Finding::file(
            exceptions::PATH,
            format!("{path} has an exception but does not exist"),
        ));
    }
    findings
}

fn is_source(file: &SourceFile) -> bool {
    SOURCE_ENDINGS
        .iter()
        .any(|ending| file.path.ends_with(ending))
}

fn counted_lines(file: &SourceFile) -> usize {
    let lines = file.text.lines().count();
    let tests = if file.is_rust() {
        tokens::read(&file.text).map_or(0, |facts| facts.test_line_count)
    } else {
        0
    };
    lines.saturating_sub(tests)
}

#[cfg(test)]
mod tests {
    use super::super::tree::samples::file;
    use super::*;

    fn except(path: &str) -> Exceptions {
        Exceptions {
            size: [(path.to_owned(), "one table".to_owned())].into(),
            ..Exceptions::default()
        }
    }

    fn check_messages(file: &SourceFile, exceptions: &Exceptions) -> Vec<String> {
        check(std::slice::from_ref(file), exceptions)
            .iter()
            .map(Finding::to_string)
            .collect()
    }

    #[test]
    fn reports_a_long_file_once() {
        let long = file("crates/a/src/b.rs", &"//\n".repeat(601));
        assert_eq!(
            check_messages(&long, &Exceptions::default()),
            ["crates/a/src/b.rs: 601 lines, over 600; hint: split it by the state it owns"]
        );
        assert!(check_messages(&long, &except("crates/a/src/b.rs")).is_empty());
    }

    #[test]
    fn does_not_count_tests() {
        let text = format!(
            "{}#[cfg(test)]\nmod tests {{\n{}}}\n",
            "//\n".repeat(600),
            "//\n".repeat(300)
        );
        assert!(
            check_messages(&file("crates/a/src/b.rs", &text), &Exceptions::default()).is_empty()
        );
        let own_file = file("crates/a/tests/b.rs", &"//\n".repeat(900));
        assert!(check_messages(&own_file, &Exceptions::default()).is_empty());
    }

    #[test]
    fn reports_stale_exceptions() {
        let short = file("crates/a/src/b.rs", "//\n");
        assert_eq!(
            check_messages(&short, &except("crates/a/src/b.rs")).len(),
            1
        );
        assert_eq!(
            check_messages(&short, &except("crates/a/src/gone.rs")).len(),
            1
        );
    }
}
