//! `plan` and `models slice`: what can be looked at and made before anything is started.

use serde_json::Value;

use crate::process::{Finished, Program};

const STARTER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/starter.gguf");

fn run(arguments: &[&str]) -> Finished {
    // No node of this machine is asked.
    let unused = ["--console", "9"];
    match arguments.first() {
        Some(&"plan") => Program::new(arguments.iter().chain(&unused)).run(),
        _ => Program::new(arguments).run(),
    }
}

fn json(arguments: &[&str]) -> Value {
    let run = run(&[arguments, &["--json"]].concat());
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    serde_json::from_str(&run.stdout).unwrap()
}

#[test]
fn a_big_model_is_planned_before_it_is_there() {
    let plan = json(&["plan", "llama-3.3-70b:q4_k_m", "--nodes", "32G,32G@5ms"]);
    assert_eq!(plan["model"], "Llama-3.3-70B:Q4_K_M");
    assert_eq!(plan["whole"], false);
    let stages = plan["stages"].as_array().unwrap();
    assert_eq!(stages.len(), 2);
    // All layers, once each.
    assert_eq!(stages[0]["layers"][0], 0);
    assert_eq!(stages[0]["layers"][1], stages[1]["layers"][0]);
    assert_eq!(stages[1]["layers"][1], 80);
    assert!(plan["tokens_per_second"].as_f64().unwrap() > 0.1, "{plan}");
    let text = run(&["plan", "Llama-3.3-70B", "--nodes", "128G"]).stdout;
    assert!(
        text.contains("whole on one machine") && text.contains("tokens/s for one stream"),
        "{text}"
    );
    let forced = json(&["plan", STARTER, "--nodes", "8G,8G,8G", "--split"]);
    assert_eq!(forced["stages"].as_array().unwrap().len(), 2);
    // This machine alone.
    assert_eq!(
        json(&["plan", STARTER])["stages"][0]["machine"],
        "this machine"
    );
}

#[test]
fn what_cant_be_planned_says_why() {
    fn check(arguments: &[&str], code: i32, words: &[&str]) {
        let run = run(arguments);
        assert_eq!(run.code, Some(code), "{arguments:?}: {run:?}");
        assert_eq!(run.stdout, "");
        for word in words {
            assert!(run.stderr.contains(word), "{arguments:?}: {}", run.stderr);
        }
    }
    let far = ["plan", "Llama-3.3-70B", "--nodes", "32G,32G@300ms"];
    check(&far, 3, &["hint: "]);
    check(
        &["plan", "Llama-3.3-70B", "--nodes", "1G"],
        3,
        &["GiB", "hint: "],
    );
    check(&["plan", "nonesuch"], 3, &["`nonesuch`", "Llama-3.3-70B"]);
    check(
        &["plan", STARTER, "--nodes", "8"],
        2,
        &["--nodes", "hint: "],
    );
}

#[test]
fn layers_become_a_file_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let cut = |layers: &str, out: &str| {
        json(&[
            "models",
            "slice",
            STARTER,
            "--layers",
            layers,
            "--output",
            &path(out),
        ])
    };
    let stage = cut("0..4", "front.gguf");
    assert_eq!(
        (&stage["role"], &stage["bytes"]),
        (&"stage".into(), &{
            let size = std::fs::metadata(path("front.gguf")).unwrap().len();
            Value::from(size)
        })
    );
    assert_eq!(cut("4..6", "back.gguf")["role"], "tail");
    let header = gguf::Model::open(path("front.gguf")).unwrap();
    assert_eq!(header.metadata().block_count().unwrap(), 4);
    for (layers, words) in [("4..4", "no layer"), ("x", "no range"), ("2..99", "6")] {
        let out = path("never.gguf");
        let run = run(&[
            "models", "slice", STARTER, "--layers", layers, "--output", &out,
        ]);
        assert_ne!(run.code, Some(0));
        assert!(run.stderr.contains(words), "{layers}: {}", run.stderr);
        assert!(!std::path::Path::new(&out).exists());
    }
    // A slice is no model to cut again, and nothing is written over the model.
    let front = path("front.gguf");
    let again = run(&["models", "slice", &front, "--layers", "0..2"]);
    assert_eq!(again.code, Some(3), "{again:?}");
    let own = path("own.gguf");
    std::fs::copy(STARTER, &own).unwrap();
    let over = run(&[
        "models", "slice", &own, "--layers", "0..2", "--output", &own,
    ]);
    assert!(over.stderr.contains("the model itself"), "{}", over.stderr);
}
