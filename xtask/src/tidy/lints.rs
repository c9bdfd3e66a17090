//! Every member takes its lints from the workspace, so that no crate is judged more mildly.

use serde::Deserialize;

use super::Finding;
use super::tree::Tree;

#[derive(Deserialize)]
struct Manifest {
    lints: Option<Lints>,
}

#[derive(Deserialize)]
struct Lints {
    #[serde(default)]
    workspace: bool,
}

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    tree.packages
        .iter()
        .filter_map(|package| Some((package.manifest.as_str(), tree.text(&package.manifest)?)))
        .filter(|(_, text)| !inherits(text))
        .map(|(path, _)| {
            Finding::file(
                path,
                "lints are not inherited; hint: add `[lints]` with `workspace = true`",
            )
        })
        .collect()
}

fn inherits(manifest: &str) -> bool {
    toml::from_str::<Manifest>(manifest)
        .ok()
        .and_then(|manifest| manifest.lints)
        .is_some_and(|lints| lints.workspace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_inherited_lints_from_own_ones() {
        assert!(inherits(
            "[package]\nname = \"a\"\n[lints]\nworkspace = true\n"
        ));
        assert!(!inherits("[package]\nname = \"a\"\n"));
        assert!(!inherits("[lints.rust]\nunsafe_code = \"allow\"\n"));
    }
}
