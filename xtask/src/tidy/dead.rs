//! Rust files that no crate root reaches: nobody compiles them, so nothing keeps them right.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::Finding;
use super::tokens::{self, FileReference};
use super::tree::Tree;

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let known = tree.rust_paths();
    let mut open: Vec<(String, bool)> = tree
        .packages
        .iter()
        .flat_map(|package| package.roots.clone())
        .chain(outside_roots(tree))
        .map(|r| (r, true))
        .collect();
    let mut reached = BTreeSet::new();
    let mut findings = Vec::new();
    while let Some((path, is_root)) = open.pop() {
        if !reached.insert(path.clone()) {
            continue;
        }
        let Some(text) = tree.text(&path) else {
            continue;
        };
        match tokens::read(text) {
            Ok(facts) => open.extend(
                facts
                    .references
                    .iter()
                    .flat_map(|reference| candidates(&path, is_root, reference))
                    .filter(|candidate| known.contains(candidate.as_str()))
                    .map(|candidate| (candidate, false)),
            ),
            Err(error) => findings.push(Finding::file(&path, error.to_string())),
        }
    }
    findings.extend(
        known
            .into_iter()
            .filter(|path| !reached.contains(*path))
            .map(|path| Finding::file(path, "no `mod` leads here; hint: declare it or delete it")),
    );
    findings
}

/// The files a reference may mean, as rustc looks for them.
fn candidates(from: &str, is_root: bool, reference: &FileReference) -> Vec<String> {
    let (folder, name) = from.rsplit_once('/').unwrap_or(("", from));
    match reference {
        FileReference::Path(path) => vec![normalise(&join(folder, path))],
        FileReference::Module {
            inline,
            name: module,
        } => {
            let stem = name.trim_end_matches(".rs");
            let mut base = if is_root || stem == "mod" {
                folder.to_owned()
            } else {
                join(folder, stem)
            };
            for part in inline {
                base = join(&base, part);
            }
            vec![
                join(&base, &format!("{module}.rs")),
                join(&base, &format!("{module}/mod.rs")),
            ]
        }
    }
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() {
        name.to_owned()
    } else {
        format!("{folder}/{name}")
    }
}

/// Resolves `.` and `..` in a relative path.
fn normalise(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "." => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

#[derive(Deserialize)]
struct OutsideManifest {
    #[serde(default)]
    bin: Vec<OutsideTarget>,
}

#[derive(Deserialize)]
struct OutsideTarget {
    path: Option<String>,
}

/// Crate roots of packages that are not members of the workspace, such as fuzz targets.
fn outside_roots(tree: &Tree) -> Vec<String> {
    let members: BTreeSet<&str> = tree
        .packages
        .iter()
        .map(|package| package.manifest.as_str())
        .collect();
    tree.files
        .iter()
        .filter_map(|file| Some((file, file.path.strip_suffix("/Cargo.toml")?)))
        .filter(|(file, _)| !members.contains(file.path.as_str()))
        .filter_map(|(file, folder)| {
            Some((toml::from_str::<OutsideManifest>(&file.text).ok()?, folder))
        })
        .flat_map(|(manifest, folder)| {
            manifest
                .bin
                .into_iter()
                .filter_map(move |bin| bin.path.map(|path| join(folder, &path)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tree::SourceFile;
    use super::super::tree::samples::{file, package};
    use super::*;

    fn dead(files: &[SourceFile]) -> Vec<String> {
        let tree = Tree {
            files: files.to_vec(),
            packages: vec![package(
                "a",
                &["crates/a/src/lib.rs", "crates/a/tests/http.rs"],
                &[],
            )],
            machine_paths: Vec::new(),
        };
        check(&tree)
            .into_iter()
            .map(|finding| finding.path)
            .collect()
    }

    #[test]
    fn follows_modules_of_every_layout() {
        let files = [
            file(
                "crates/a/src/lib.rs",
                "mod b; mod c; mod e { mod f; } #[path = \"odd/g.rs\"] mod g;",
            ),
            file("crates/a/src/b.rs", "mod d;"),
            file("crates/a/src/b/d.rs", ""),
            file("crates/a/src/c/mod.rs", "mod h;"),
            file("crates/a/src/c/h.rs", ""),
            file("crates/a/src/e/f.rs", ""),
            file("crates/a/src/odd/g.rs", ""),
            file("crates/a/tests/http.rs", "mod support;"),
            file(
                "crates/a/tests/support/mod.rs",
                "include!(\"../table.rs\");",
            ),
            file("crates/a/tests/table.rs", ""),
        ];
        assert!(dead(&files).is_empty());
    }

    #[test]
    fn reports_what_nothing_declares() {
        let files = [
            file("crates/a/src/lib.rs", "// mod b;"),
            file("crates/a/src/b.rs", "mod c;"),
            file("crates/a/src/b/c.rs", ""),
        ];
        assert_eq!(dead(&files), ["crates/a/src/b.rs", "crates/a/src/b/c.rs"]);
    }

    #[test]
    fn knows_fuzz_targets() {
        let files = [
            file(
                "crates/a/fuzz/Cargo.toml",
                "[[bin]]\nname = \"header\"\npath = \"fuzz_targets/header.rs\"\n",
            ),
            file("crates/a/fuzz/fuzz_targets/header.rs", ""),
        ];
        assert!(dead(&files).is_empty());
    }
}
