//! Which crate may use which. The order is that of ARCHITECTURE.md: left never knows right.

use super::Finding;
use super::tree::Package;

/// Each crate of the workspace and the workspace crates it may depend on.
const ALLOWED: [(&str, &[&str]); 10] = [
    ("gguf", &[]),
    ("llama", &["gguf"]),
    ("engine", &["gguf", "llama"]),
    ("mesh", &[]),
    ("split", &["gguf", "engine", "mesh"]),
    ("node", &["gguf", "engine", "mesh", "split"]),
    ("api", &["engine", "mesh", "node"]),
    (
        "mesh-llm",
        &["gguf", "engine", "mesh", "split", "node", "api"],
    ),
    ("testkit", &["gguf"]),
    ("xtask", &["testkit", "mesh"]),
];

/// What tests may use beyond that: testkit's own tests load the models it writes.
const ALLOWED_IN_TESTS: [(&str, &str); 1] = [("testkit", "llama")];

/// May be used by the tests of every crate, never by what is shipped.
const DEV_ONLY: &str = "testkit";

pub(super) fn check(packages: &[Package]) -> Vec<Finding> {
    packages.iter().flat_map(check_package).collect()
}

fn check_package(package: &Package) -> Vec<Finding> {
    let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == package.name) else {
        let message = format!(
            "crate {} has no place in the table of xtask/src/tidy/edges.rs",
            package.name
        );
        return vec![Finding::file(&package.manifest, message)];
    };
    package
        .dependencies
        .iter()
        .filter(|dependency| !allowed.contains(&dependency.name.as_str()))
        .filter(|dependency| !(dependency.dev && dependency.name == DEV_ONLY))
        .filter(|dependency| {
            let pair = (package.name.as_str(), dependency.name.as_str());
            !(dependency.dev && ALLOWED_IN_TESTS.contains(&pair))
        })
        // A crate's examples and tests may name the crate itself to turn features on.
        .filter(|dependency| !(dependency.dev && dependency.name == package.name))
        .map(|dependency| {
            let message = format!(
                "{} must not use {}; hint: ARCHITECTURE.md has the order of the crates",
                package.name, dependency.name
            );
            Finding::file(&package.manifest, message)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tree::samples::package;
    use super::*;

    fn count(name: &str, dependencies: &[(&str, bool)]) -> usize {
        check(&[package(name, &[], dependencies)]).len()
    }

    #[test]
    fn allows_left_hand_crates_and_testkit_in_tests() {
        assert_eq!(
            count(
                "engine",
                &[("gguf", false), ("llama", false), ("testkit", true)]
            ),
            0
        );
        assert_eq!(count("mesh-llm", &[("mesh-llm", true)]), 0);
    }

    #[test]
    fn refuses_the_reverse_the_skipped_and_the_shipped_testkit() {
        for (name, dependency) in [
            ("gguf", "llama"),
            ("engine", "node"),
            ("api", "llama"),
            ("api", "testkit"),
        ] {
            assert_eq!(
                count(name, &[(dependency, false)]),
                1,
                "{name} -> {dependency}"
            );
        }
        assert_eq!(count("gguf", &[("engine", true)]), 1);
    }

    #[test]
    fn refuses_a_crate_without_a_place() {
        assert_eq!(count("utils", &[]), 1);
    }
}
