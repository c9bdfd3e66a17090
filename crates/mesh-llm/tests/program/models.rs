//! `mesh-llm models`.

use mesh_llm::STARTER;
use serde_json::Value;

use crate::process::Program;

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let hub = folder.path().join("models--org--repo/snapshots/0123abcd");
    std::fs::create_dir_all(&hub).unwrap();
    std::fs::write(hub.join("Tiny-Q8_0.gguf"), STARTER).unwrap();
    std::fs::write(folder.path().join("mmproj-Tiny.gguf"), STARTER).unwrap();
    std::fs::write(folder.path().join("broken.gguf"), b"not a model").unwrap();
    std::fs::write(folder.path().join("notes.txt"), b"text").unwrap();
    folder
}

#[test]
fn lists_what_can_be_served_and_why_not() {
    let folder = folder();
    let path = folder.path().display().to_string();
    let run = Program::new(["models", "--models-dir", &path]).run();
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert!(lines[0].starts_with("NAME"), "{}", run.stdout);
    let columns = |line: &str| -> Vec<String> {
        line.split("  ")
            .map(str::trim)
            .filter(|cell| !cell.is_empty())
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(columns(lines[1])[..2], ["starter", "qwen3"]);
    assert_eq!(columns(lines[2])[..2], ["Tiny-Q8_0", "qwen3"]);
    assert_eq!(columns(lines[1])[2..], columns(lines[2])[2..]);
    assert_eq!(columns(lines[2]).last().unwrap(), "yes");
    assert!(lines[3].starts_with(&format!("can't be served: {path}/broken.gguf: ")));
    assert_eq!(lines.len(), 4, "{}", run.stdout);
}

#[test]
fn scripts_get_json() {
    let folder = folder();
    let path = folder.path().display().to_string();
    let run = Program::new(["models", "--json"])
        .env("MESH_LLM_MODELS_DIR", &path)
        .run();
    // The same where all output is JSON.
    let same = Program::new(["models", "--log-format=json"])
        .env("MESH_LLM_MODELS_DIR", &path)
        .run();
    assert_eq!(same.stdout, run.stdout);
    let models: Vec<Value> = serde_json::from_str(&run.stdout).unwrap();
    let names: Vec<&str> = models
        .iter()
        .map(|model| model["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["starter", "broken", "Tiny-Q8_0"]);
    let keys: Vec<&String> = models[2].as_object().unwrap().keys().collect();
    let expected = [
        "name",
        "path",
        "architecture",
        "parameters",
        "size_bytes",
        "files",
        "context_tokens",
        "quantization",
        "needed_bytes",
        "fits",
    ];
    assert_eq!(keys, expected);
    assert_eq!(models[2]["size_bytes"], STARTER.len());
    assert!(models[0]["path"].is_null() && models[1]["error"].is_string());
}

#[test]
fn an_empty_machine_says_where_it_looked() {
    let program = Program::new(["models"]);
    let home = program.home().display().to_string();
    let run = program.run();
    let last = run.stdout.lines().last().unwrap().replace(&home, "HOME");
    assert_eq!(
        last,
        "no GGUF files in HOME/.models or HOME/.cache/huggingface/hub"
    );
}
