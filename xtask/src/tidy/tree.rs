//! Reads the working tree and cargo's metadata into plain values. Judges nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// Larger files are data, not source: no rule here looks into them.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Folders that hold products or foreign code, at any depth.
const SKIPPED_FOLDERS: [&str; 6] = [
    "target",
    ".git",
    "node_modules",
    ".venv",
    "__pycache__",
    "corpus",
];

/// A text file of the tree.
#[derive(Clone, Debug)]
pub(super) struct SourceFile {
    /// Relative to the workspace root, with `/`.
    pub(super) path: String,
    pub(super) text: String,
}

impl SourceFile {
    pub(super) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether the file holds nothing but tests.
    pub(super) fn is_test(&self) -> bool {
        let mut parts = self.path.rsplit('/');
        let name = parts.next().unwrap_or_default();
        name == "tests.rs" || name.ends_with("_tests.rs") || parts.any(|folder| folder == "tests")
    }
}

/// A workspace member as far as the rules need it.
#[derive(Clone, Debug)]
pub(super) struct Package {
    pub(super) name: String,
    /// Relative path of its `Cargo.toml`.
    pub(super) manifest: String,
    /// Relative paths of its crate roots: library, binaries, tests, examples, benches, build script.
    pub(super) roots: Vec<String>,
    pub(super) dependencies: Vec<Dependency>,
}

/// A declared dependency on another member of the workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dependency {
    pub(super) name: String,
    /// Used by tests, examples and benches only.
    pub(super) dev: bool,
}

/// Everything the checks look at.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) files: Vec<SourceFile>,
    pub(super) packages: Vec<Package>,
    /// Absolute paths of this machine that no file may name.
    pub(super) machine_paths: Vec<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<MetadataPackage>,
    workspace_root: PathBuf,
}

#[derive(Deserialize)]
struct MetadataPackage {
    name: String,
    manifest_path: PathBuf,
    targets: Vec<MetadataTarget>,
    dependencies: Vec<MetadataDependency>,
}

#[derive(Deserialize)]
struct MetadataTarget {
    src_path: PathBuf,
}

#[derive(Deserialize)]
struct MetadataDependency {
    name: String,
    kind: Option<String>,
    path: Option<PathBuf>,
}

impl Tree {
    /// Reads the workspace that the current directory belongs to.
    pub(super) fn load() -> Result<Self> {
        let metadata: Metadata =
            serde_json::from_slice(&cargo(&["metadata", "--no-deps", "--format-version", "1"])?)
                .context("cargo metadata printed something else than its documented format")?;
        let root = metadata.workspace_root;
        let mut files = Vec::new();
        match listed_by_git(&root) {
            Some(paths) => {
                for path in paths {
                    read_file(&root, &path, &mut files)?;
                }
            }
            None => read_folder(&root, &root, &mut files)?,
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let packages = metadata
            .packages
            .into_iter()
            .map(|package| convert(&root, package))
            .collect();
        let machine_paths = vec![root.to_string_lossy().into_owned()];
        Ok(Self {
            files,
            packages,
            machine_paths,
        })
    }

    /// The text of one file, if the tree has it.
    pub(super) fn text(&self, path: &str) -> Option<&str> {
        self.files
            .iter()
            .find(|file| file.path == path)
            .map(|file| file.text.as_str())
    }

    /// Paths of all Rust files.
    pub(super) fn rust_paths(&self) -> BTreeSet<&str> {
        self.files
            .iter()
            .filter(|file| file.is_rust())
            .map(|file| file.path.as_str())
            .collect()
    }
}

/// What `cargo tree` prints for the binary without in-process inference: one crate a line.
pub(super) fn tree_without_solo() -> Result<String> {
    let arguments = [
        "tree",
        "--package",
        "mesh-llm",
        "--no-default-features",
        "--edges",
        "normal,build",
        "--prefix",
        "none",
    ];
    Ok(String::from_utf8_lossy(&cargo(&arguments)?).into_owned())
}

fn convert(root: &Path, package: MetadataPackage) -> Package {
    Package {
        name: package.name,
        manifest: relative(root, &package.manifest_path),
        roots: package
            .targets
            .iter()
            .map(|target| relative(root, &target.src_path))
            .collect(),
        dependencies: package
            .dependencies
            .into_iter()
            .filter(|dependency| dependency.path.is_some())
            .map(|dependency| Dependency {
                name: dependency.name,
                dev: dependency.kind.as_deref() == Some("dev"),
            })
            .collect(),
    }
}

fn cargo(arguments: &[&str]) -> Result<Vec<u8>> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(program)
        .args(arguments)
        .output()
        .context("cargo could not be started")?;
    if !output.status.success() {
        bail!(
            "cargo {} failed: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(output.stdout)
}

fn read_folder(root: &Path, folder: &Path, files: &mut Vec<SourceFile>) -> Result<()> {
    for entry in
        fs::read_dir(folder).with_context(|| format!("{} cannot be listed", folder.display()))?
    {
        let entry = entry?;
        let kind = entry.file_type()?;
        let path = entry.path();
        if kind.is_dir() {
            let name = entry.file_name();
            if !SKIPPED_FOLDERS.iter().any(|skipped| name == *skipped) {
                read_folder(root, &path, files)?;
            }
        } else if kind.is_file() {
            read_file(root, &path, files)?;
        }
    }
    Ok(())
}

/// Adds one file, unless it is no source: too large, a link, deleted, or not UTF-8.
fn read_file(root: &Path, path: &Path, files: &mut Vec<SourceFile>) -> Result<()> {
    let Ok(metadata) = path.symlink_metadata() else {
        return Ok(());
    };
    if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
        return Ok(());
    }
    let bytes = fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
    if let Ok(text) = String::from_utf8(bytes) {
        files.push(SourceFile {
            path: relative(root, path),
            text,
        });
    }
    Ok(())
}

/// All files that git does not ignore; `None` outside a git checkout.
fn listed_by_git(root: &Path) -> Option<Vec<PathBuf>> {
    let output = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(root)
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| {
        text.split_terminator('\0')
            .map(|path| root.join(path))
            .collect()
    })
}

fn relative(root: &Path, path: &Path) -> String {
    let path = path.strip_prefix(root).unwrap_or(path);
    path.components()
        .map(|part| part.as_os_str().to_string_lossy())
        .collect::<Vec<_>>()
        .join("/")
}

#[cfg(test)]
pub(super) mod samples {
    //! Small trees for the checks' own tests.

    use super::{Dependency, Package, SourceFile};

    pub(in crate::tidy) fn file(path: &str, text: &str) -> SourceFile {
        SourceFile {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    pub(in crate::tidy) fn package(
        name: &str,
        roots: &[&str],
        dependencies: &[(&str, bool)],
    ) -> Package {
        Package {
            name: name.to_owned(),
            manifest: format!("crates/{name}/Cargo.toml"),
            roots: roots.iter().map(|root| (*root).to_owned()).collect(),
            dependencies: dependencies
                .iter()
                .map(|(name, dev)| Dependency {
                    name: (*name).to_owned(),
                    dev: *dev,
                })
                .collect(),
        }
    }
}
