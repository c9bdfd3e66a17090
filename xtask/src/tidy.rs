//! `cargo xtask tidy`: the rules of this tree that neither rustc nor clippy checks.
//!
//! Owns the list of checks and how they are reported. Each check is a pure function from the
//! loaded tree to findings; reading files and calling cargo happens in `tree` alone.

mod dead;
mod edges;
mod exceptions;
mod forbidden;
mod lints;
mod size;
mod solo;
mod source;
mod tokens;
mod tree;

use std::fmt;

use anyhow::{Result, bail};

use tree::Tree;

/// One broken rule, shown as `path:line: message`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    /// Relative to the workspace root, with `/`.
    path: String,
    /// Counted from 1; `None` where the rule is about the whole file.
    line: Option<usize>,
    message: String,
}

impl Finding {
    fn file(path: &str, message: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            line: None,
            message: message.into(),
        }
    }

    fn at(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            line: Some(line),
            message: message.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.path, self.message),
            None => write!(f, "{}: {}", self.path, self.message),
        }
    }
}

/// Runs every check on the workspace and fails if one found something.
pub(crate) fn run() -> Result<()> {
    let tree = Tree::load()?;
    let mut findings = check(&tree)?;
    findings.extend(solo::check(&tree::tree_without_solo()?));
    findings.sort();
    findings.dedup();
    for finding in &findings {
        eprintln!("{finding}");
    }
    if !findings.is_empty() {
        bail!("tidy found {} broken rules", findings.len());
    }
    eprintln!(
        "tidy: {} files, {} crates, nothing to report",
        tree.files.len(),
        tree.packages.len()
    );
    Ok(())
}

/// The checks that need nothing but the loaded tree.
fn check(tree: &Tree) -> Result<Vec<Finding>> {
    let exceptions = exceptions::parse(tree)?;
    let mut findings = size::check(&tree.files, &exceptions);
    findings.extend(dead::check(tree));
    findings.extend(edges::check(&tree.packages));
    findings.extend(lints::check(tree));
    findings.extend(source::check(&tree.files, &exceptions));
    findings.extend(forbidden::check(&tree.files, &tree.machine_paths));
    Ok(findings)
}
