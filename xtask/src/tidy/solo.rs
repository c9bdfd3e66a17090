//! Without the feature `solo` nothing of llama.cpp is built, so no C++ compiler is needed.

use super::Finding;

/// Crates that would bring C++ or its build tools in.
const CPP_CRATES: [&str; 4] = ["llama", "llama-cpp-sys-2", "bindgen", "cmake"];

/// `cargo_tree` has one crate a line, its name first.
pub(super) fn check(cargo_tree: &str) -> Vec<Finding> {
    cargo_tree
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| CPP_CRATES.contains(name))
        .map(|name| {
            let message = format!(
                "{name} is built without the feature `solo`; hint: put it behind the feature"
            );
            Finding::file("crates/mesh-llm/Cargo.toml", message)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_cpp_by_exact_name() {
        assert!(check("mesh-llm v0.1.0 (x)\nllama-helpers v1.0.0\n").is_empty());
        assert_eq!(
            check("mesh-llm v0.1.0 (x)\nllama-cpp-sys-2 v0.1.161\n").len(),
            1
        );
    }
}
