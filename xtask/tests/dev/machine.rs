//! A machine as `./dev setup` sees it, and what came of a run on it. Owns no case.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// Real programs, which the script may take for granted: the smallest images of the systems it sets up have them.
const REAL: [&str; 11] = [
    "cmp", "cp", "dirname", "env", "mkdir", "mktemp", "rm", "sed", "sh", "tr", "true",
];

/// Programs in a folder of their own, and how they behave.
pub(crate) struct Machine {
    folder: TempDir,
    variables: BTreeMap<&'static str, OsString>,
}

impl Machine {
    /// `system` is what `uname` says. There is nothing but `programs`; its user is root.
    pub(crate) fn new(system: &str, programs: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let inside = |name: &str| folder.path().join(name);
        for name in ["bin", "home", "tmp"] {
            fs::create_dir(inside(name)).unwrap();
        }
        for program in REAL {
            symlink(real(program), inside("bin").join(program)).unwrap();
        }
        copy_stub(&inside("bin").join("stub"));
        let variables: BTreeMap<&str, OsString> = BTreeMap::from([
            ("PATH", inside("bin").into()),
            ("HOME", inside("home").into()),
            ("XDG_CACHE_HOME", inside("cache").into()),
            ("CARGO_HOME", inside("cargo").into()),
            ("TMPDIR", inside("tmp").into()),
            // Where it is set the script believes it: it does not matter what the real machine has.
            ("LIBCLANG_PATH", inside("libclang").into()),
            ("STUB_BIN", inside("bin").into()),
            ("STUB_LOG", inside("log").into()),
            ("STUB_PATH", std::env::var_os("PATH").unwrap()),
            ("STUB_SYSTEM", system.into()),
            ("STUB_UID", "0".into()),
            (
                "STUB_RUST",
                concat!(env!("CARGO_PKG_RUST_VERSION"), ".0").into(),
            ),
            ("STUB_FAILS", "".into()),
            ("STUB_EMPTY", "".into()),
        ]);
        let machine = Self { folder, variables };
        machine.with(&["uname", "id"]).with(programs)
    }

    pub(crate) fn with(self, programs: &[&str]) -> Self {
        for program in programs {
            symlink("stub", self.path("bin").join(program)).unwrap();
        }
        self
    }

    pub(crate) fn without(self, program: &str) -> Self {
        fs::remove_file(self.path("bin").join(program)).unwrap();
        self
    }

    pub(crate) fn set(mut self, variable: &'static str, value: &str) -> Self {
        self.variables.insert(variable, value.into());
        self
    }

    pub(crate) fn unset(mut self, variable: &str) -> Self {
        self.variables.remove(variable);
        self
    }

    /// Calls that match the shell's pattern fail.
    pub(crate) fn failing(self, pattern: &str) -> Self {
        self.set("STUB_FAILS", pattern)
    }

    /// The user is not root.
    pub(crate) fn unprivileged(self) -> Self {
        self.set("STUB_UID", "1000")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs the script, with nobody there to answer questions.
    pub(crate) fn setup(&self) -> Outcome {
        fs::write(self.path("log"), "").unwrap();
        let output = Command::new("/bin/sh")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../dev"))
            .arg("setup")
            .env_clear()
            .envs(&self.variables)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let messages = String::from_utf8_lossy(&output.stderr).into_owned();
        let left = fs::read_dir(self.path("tmp")).unwrap().count();
        assert_eq!(left, 0, "temporary files are left over: {messages}");
        Outcome {
            status: output.status.code(),
            messages,
            calls: fs::read_to_string(self.path("log")).unwrap(),
            shares_headers: fs::read_dir(self.path("cache/mesh-llm/include"))
                .is_ok_and(|mut files| files.next().is_some()),
        }
    }
}

/// Where the machine that runs this test has a program.
fn real(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
        .unwrap_or_else(|| panic!("{program} is not on PATH"))
}

/// Another process copies it: a program can't be started while anybody has it open to write, which a child that a
/// test beside this one starts at that moment would have too.
fn copy_stub(to: &Path) {
    let copied = Command::new("/bin/sh")
        .args(["-c", "cp \"$1\" \"$2\" && chmod 755 \"$2\"", "sh"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dev/stub.sh"))
        .arg(to)
        .status()
        .unwrap();
    assert!(copied.success());
}

/// What came of a run.
pub(crate) struct Outcome {
    /// `None` if a signal ended the script.
    pub(crate) status: Option<i32>,
    /// Standard error.
    messages: String,
    /// One a line, in their order.
    calls: String,
    shares_headers: bool,
}

impl Outcome {
    /// Checks that all is there now, and how the calls for it began.
    pub(crate) fn succeeds(&self, calls: &[&str]) {
        assert_eq!(self.status, Some(0), "{}", self.messages);
        assert!(!self.messages.contains("dev: error:"), "{}", self.messages);
        assert!(self.shares_headers, "{}", self.messages);
        self.called(calls);
    }

    /// Checks what is said, how the advice begins, and how the calls before it began.
    pub(crate) fn stops(&self, error: &str, hint: &str, calls: &[&str]) {
        assert_eq!(self.status, Some(1), "{}", self.messages);
        assert_eq!(self.said("dev: error: "), [error], "{}", self.messages);
        let hints = self.said("dev: hint: ");
        assert!(
            hints.len() == 1 && hints[0].starts_with(hint),
            "{hints:?} instead of {hint:?}"
        );
        assert!(!self.shares_headers, "{}", self.messages);
        self.called(calls);
    }

    fn called(&self, beginnings: &[&str]) {
        let calls: Vec<&str> = self.calls.lines().collect();
        let mut pairs = calls.iter().zip(beginnings);
        assert!(
            calls.len() == beginnings.len()
                && pairs.all(|(call, beginning)| call.starts_with(beginning)),
            "{calls:#?} instead of {beginnings:#?}: {}",
            self.messages
        );
    }

    /// Checks what was found to be missing at first.
    pub(crate) fn misses(&self, tools: &str) -> &Self {
        let line = format!("{tools}; installing with this system's own package manager");
        assert_eq!(self.said("dev: missing: "), [line], "{}", self.messages);
        self
    }

    /// What comes after `mark` in the lines that begin with it.
    fn said(&self, mark: &str) -> Vec<&str> {
        let lines = self.messages.lines();
        lines.filter_map(|line| line.strip_prefix(mark)).collect()
    }
}
