//! The listed exceptions in `xtask/tidy.toml`: which files may break a rule, and why.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::tree::Tree;

/// Where the list lives, relative to the workspace root.
pub(super) const PATH: &str = "xtask/tidy.toml";

/// Path to reason, for each rule that knows exceptions.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Exceptions {
    #[serde(default)]
    pub(super) size: BTreeMap<String, String>,
    #[serde(default, rename = "unsafe")]
    pub(super) unsafe_code: BTreeMap<String, String>,
}

/// Reads the list from the loaded tree.
pub(super) fn parse(tree: &Tree) -> Result<Exceptions> {
    let text = tree
        .text(PATH)
        .with_context(|| format!("{PATH} is missing"))?;
    let exceptions: Exceptions =
        toml::from_str(text).with_context(|| format!("{PATH} is not valid"))?;
    let mut all = exceptions.size.iter().chain(&exceptions.unsafe_code);
    if let Some((path, _)) = all.find(|(_, reason)| reason.trim().is_empty()) {
        bail!("{PATH}: the exception for {path} gives no reason");
    }
    Ok(exceptions)
}
