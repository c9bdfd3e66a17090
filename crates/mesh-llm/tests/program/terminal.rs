//! What a person sees in a terminal: a pseudo terminal stands in for the screen.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;

use crate::process::{Program, WAIT_MAX};

/// How often a program is asked whether it is over.
const POLL: Duration = Duration::from_millis(10);

/// Points of a camera's picture for each module of a code.
const MODULE_POINTS: usize = 5;

/// A program on a terminal of its own.
pub(crate) struct Screen {
    child: Child,
    keyboard: File,
    bytes: Receiver<Vec<u8>>,
    shown: Vec<u8>,
    /// How much of that [`Screen::then`] has gone past, bytes.
    passed: usize,
    _home: tempfile::TempDir,
}

impl Screen {
    pub(crate) fn start(program: Program, columns: u16, rows: u16) -> Self {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let ends = openpty(&size, None).unwrap();
        let (screen, terminal) = (ends.master, ends.slave);
        let end = || Stdio::from(terminal.try_clone().unwrap());
        let (mut command, home) = program.into_parts();
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn();
        Self {
            child: child.unwrap(),
            keyboard: File::from(screen.try_clone().unwrap()),
            bytes: follow(screen),
            shown: Vec::new(),
            passed: 0,
            _home: home,
        }
    }

    /// Waits until `text` is on the screen; gives all that was shown.
    pub(crate) fn until(&mut self, text: &str) -> String {
        let began = Instant::now();
        loop {
            let shown = String::from_utf8_lossy(&self.shown);
            if shown.contains(text) {
                return shown.into_owned();
            }
            let left = WAIT_MAX.saturating_sub(began.elapsed());
            match self.bytes.recv_timeout(left) {
                Ok(bytes) => self.shown.extend(bytes),
                Err(_) => panic!("no `{text}` in {shown}"),
            }
        }
    }
}

impl Screen {
    /// Waits until `text` is shown behind what the last call waited for.
    pub(crate) fn then(&mut self, text: &str) {
        let began = Instant::now();
        loop {
            let mut parts = self.shown[self.passed..].windows(text.len());
            if let Some(start) = parts.position(|part| part == text.as_bytes()) {
                self.passed += start + text.len();
                return;
            }
            let left = WAIT_MAX.saturating_sub(began.elapsed());
            match self.bytes.recv_timeout(left) {
                Ok(bytes) => self.shown.extend(bytes),
                Err(_) => {
                    let rest = String::from_utf8_lossy(&self.shown[self.passed..]);
                    panic!("no `{text}` in {rest}");
                }
            }
        }
    }

    pub(crate) fn type_in(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).unwrap();
    }

    /// Where the terminal makes a signal of Ctrl-C, it is sent from here: the program has no controlling
    /// terminal that would do it. Else it is a byte like any other.
    pub(crate) fn press_ctrl_c(&mut self) {
        let mode = tcgetattr(&self.keyboard).unwrap();
        if mode.local_flags.contains(LocalFlags::ISIG) {
            let pid = Pid::from_raw(self.child.id().try_into().unwrap());
            kill(pid, Signal::SIGINT).unwrap();
        } else {
            self.type_in("\x03");
        }
    }

    /// Waits until the program has ended by itself; gives its exit code.
    pub(crate) fn finish(mut self) -> Option<i32> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(began.elapsed() < WAIT_MAX, "the program must end");
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // It may be over.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn follow(screen: OwnedFd) -> Receiver<Vec<u8>> {
    let (send, bytes) = channel();
    std::thread::spawn(move || {
        let mut screen = File::from(screen);
        let mut part = [0; 4096];
        // The end of the program is an error of its terminal.
        while let Ok(read @ 1..) = screen.read(&mut part) {
            if send.send(part[..read].to_vec()).is_err() {
                return;
            }
        }
    });
    bytes
}

/// The lines that have colours of their own, each as two rows of modules; `true` is dark.
fn modules(shown: &str) -> Vec<Vec<bool>> {
    let line = |line: &str| {
        Some(
            line.split_once("\x1b[97;40m")?
                .1
                .split_once("\x1b[0m")?
                .0
                .to_owned(),
        )
    };
    let halves = |line: String| {
        let halves = line.chars().map(|sign| match sign {
            ' ' => [true, true],
            '▀' => [false, true],
            '▄' => [true, false],
            '█' => [false, false],
            other => panic!("{other:?} is no part of a code"),
        });
        let (upper, lower) = halves.map(|[upper, lower]| (upper, lower)).unzip();
        [upper, lower]
    };
    shown.lines().filter_map(line).flat_map(halves).collect()
}

/// What a camera reads in them.
fn read(modules: &[Vec<bool>]) -> String {
    let (height, width) = (modules.len(), modules[0].len());
    let point = |x: usize, y: usize| match modules[y / MODULE_POINTS][x / MODULE_POINTS] {
        true => 0,
        false => 255,
    };
    let (width, height) = (width * MODULE_POINTS, height * MODULE_POINTS);
    let mut picture = rqrr::PreparedImage::prepare_from_greyscale(width, height, point);
    let codes = picture.detect_grids();
    assert_eq!(codes.len(), 1);
    codes[0].decode().unwrap().1
}

/// The word after `start`.
fn word_after<'a>(shown: &'a str, start: &str) -> &'a str {
    let rest = shown.split_once(start).unwrap().1;
    rest.split_whitespace().next().unwrap()
}

/// A camera reads what is to be pasted; capitals, because they need less room in a code, and a ticket in
/// capitals is the same ticket.
#[test]
fn a_ticket_is_shown_as_a_code_for_a_camera() {
    let node = Program::new(["--model=starter", "--port=0"]);
    let mut screen = Screen::start(node, 160, 100);
    let shown = screen.until("\x1b[0m\r\n\r\n");
    let ticket = word_after(&shown, "mesh-llm --join ");
    let code = read(&modules(&shown));
    assert_eq!(code, ticket.to_uppercase());
    let arguments = ["--join", &code, "--client", "--port=0", "--log-format=json"];
    let joined = Program::new(arguments).start();
    joined.ready();
}

/// Half a code is worth nothing.
#[test]
fn a_small_terminal_shows_no_code() {
    let node = Program::new(["--model=starter", "--port=0"]);
    let mut screen = Screen::start(node, 80, 24);
    screen.until("mesh-llm --join ");
    // A code would come before what is said next.
    screen.press_ctrl_c();
    let shown = screen.until("stopping: ");
    assert!(!shown.contains('█'), "{shown}");
}
