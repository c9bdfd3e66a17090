//! Help, completions and the man page.

use crate::process::Program;

fn stdout(arguments: &[&str]) -> String {
    let run = Program::new(arguments).run();
    assert_eq!(
        (run.code, run.stderr.as_str()),
        (Some(0), ""),
        "{arguments:?}"
    );
    run.stdout
}

#[test]
fn help() {
    insta::assert_snapshot!("help", stdout(&["-h"]));
    insta::assert_snapshot!("help-chat", stdout(&["chat", "-h"]));
}

#[test]
fn the_version_is_one_line() {
    let expected = format!("mesh-llm {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(stdout(&["--version"]), expected);
}

#[test]
fn completions_and_man_page_know_the_flags() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(
            stdout(&["completions", shell]).contains("ctx-size"),
            "{shell}"
        );
    }
    let page = stdout(&["man"]);
    assert!(page.contains(".TH mesh-llm 1") && page.contains("listen\\-all"));
    let page = stdout(&["man", "invite"]);
    assert!(
        page.contains("mesh\\-llm\\-invite") && page.contains("\\-\\-expires"),
        "{page}"
    );
    let run = Program::new(["man", "nonesuch"]).run();
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(run.stderr.contains("hint: "), "{}", run.stderr);
}

#[test]
fn broken_settings_do_not_hinder_them() {
    let run = Program::new(["man"]).config("nonsense = 1").run();
    assert_eq!(run.code, Some(0));
}
