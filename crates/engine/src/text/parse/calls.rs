//! Reads tool calls written as JSON while they are being written.
//!
//! A call is an object with a name and arguments, or a list of such objects, or (Mistral's newer
//! form) a bare name followed by its arguments. The arguments are passed on as they come, once
//! the name is known.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// "The call begun last, or a new one if there is a name."
pub(super) const NEXT: u32 = u32::MAX;

/// A part of a call, before it is numbered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Delta {
    pub(super) index_in_answer: u32,
    pub(super) id: Option<String>,
    pub(super) name: Option<String>,
    pub(super) arguments: String,
}

/// What a piece of text brought.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) deltas: Vec<Delta>,
    /// Text that was taken for a call and is none.
    pub(super) raw: String,
    /// Text after the end.
    pub(super) rest: String,
    /// No more text belongs to the calls.
    pub(super) over: bool,
    /// It ended because the text is not a call.
    pub(super) failed: bool,
}

/// A new identifier: unique in this process and hard to guess, nine characters after `call_`.
pub(super) fn new_id() -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u64(COUNTER.fetch_add(1, Ordering::Relaxed));
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut bits =
        u128::from(hasher.finish()) << 64 | u128::from(RandomState::new().build_hasher().finish());
    let mut id = String::from("call_");
    for _ in 0..24 {
        id.push(char::from(ALPHABET[(bits & 31) as usize]));
        bits >>= 5;
    }
    id
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first character.
    Begin,
    /// A bare name (Mistral).
    BareName,
    /// Inside a list, before an object.
    ListItem,
    /// Inside a list, after an object.
    ListNext,
    /// Inside an object, before a key.
    Key,
    KeyText,
    Colon,
    Value,
    /// Copying a value.
    Copy,
    /// After a value: a comma or the object's end.
    Next,
}

/// What the current value is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Name,
    Arguments,
    Skip,
}

/// Follows a JSON value to its end without understanding it.
#[derive(Debug, Clone, Copy, Default)]
struct Follower {
    depth: u32,
    in_text: bool,
    escaped: bool,
    started: bool,
}

/// Where a character stands in a value.
enum Place {
    Inside,
    /// The value's last character.
    Last,
    /// The first character after a value without an end mark (a number, `true`).
    After,
}

impl Follower {
    fn follow(&mut self, char: char) -> Place {
        let first = !std::mem::replace(&mut self.started, true);
        if self.in_text {
            match char {
                _ if self.escaped => self.escaped = false,
                '\\' => self.escaped = true,
                '"' => {
                    self.in_text = false;
                    if self.depth == 0 {
                        return Place::Last;
                    }
                }
                _ => {}
            }
            return Place::Inside;
        }
        match char {
            '"' => self.in_text = true,
            '{' | '[' => self.depth += 1,
            '}' | ']' if self.depth > 0 => {
                self.depth -= 1;
                if self.depth == 0 {
                    return Place::Last;
                }
            }
            ',' | '}' | ']' if self.depth == 0 => return Place::After,
            _ if char.is_whitespace() && self.depth == 0 && !first => return Place::After,
            _ => {}
        }
        Place::Inside
    }
}

/// Reads the calls after one marker.
#[derive(Debug, Clone)]
pub(super) struct CallScanner {
    /// Only calls of these count.
    known: Option<Arc<[String]>>,
    state: State,
    in_list: bool,
    /// Open `"function": {` wrappers.
    wrappers: u32,
    /// Text since the last call was announced or ended; comes back if it is none.
    raw: String,
    key: String,
    using: Use,
    value: String,
    follower: Follower,
    name: Option<String>,
    announced: bool,
    /// Any call was announced after this marker.
    any: bool,
    has_arguments: bool,
    /// The arguments are an object that can be passed on as it comes.
    streams: bool,
    /// A bare name came: no object is around the call.
    bare_form: bool,
    /// Arguments that are not passed on yet.
    early: String,
}

impl CallScanner {
    /// A scanner for what follows `marker`.
    pub(super) fn new(marker: &str, known: Option<Arc<[String]>>) -> Self {
        Self {
            known,
            state: State::Begin,
            in_list: false,
            wrappers: 0,
            raw: marker.to_owned(),
            key: String::new(),
            using: Use::Skip,
            value: String::new(),
            follower: Follower::default(),
            name: None,
            announced: false,
            any: false,
            has_arguments: false,
            streams: false,
            bare_form: false,
            early: String::new(),
        }
    }

    /// Bytes held back.
    pub(super) fn held_bytes(&self) -> usize {
        self.raw.len() + self.value.len() + self.early.len()
    }

    pub(super) fn push(&mut self, text: &str) -> Scan {
        let mut scan = Scan::default();
        let mut at = 0;
        while let Some(char) = text[at..].chars().next() {
            match self.take(char, &mut scan) {
                Step::Taken => at += char.len_utf8(),
                Step::Again => {}
                Step::Over => {
                    scan.over = true;
                    scan.rest = text[at + char.len_utf8()..].to_owned();
                    break;
                }
                Step::Fail => {
                    scan.over = true;
                    scan.failed = true;
                    scan.raw = std::mem::take(&mut self.raw);
                    scan.rest = text[at..].to_owned();
                    break;
                }
            }
        }
        self.flush_arguments(&mut scan);
        scan
    }

    /// No more text comes: what is not a call comes back. If the answer was `cut` off, a call
    /// whose name has come is one, and what else belongs to a call is dropped; `certain` says
    /// that only calls can stand here.
    pub(super) fn end(&mut self, cut: bool, certain: bool) -> Scan {
        let mut scan = Scan::default();
        if cut && self.name.is_some() && self.is_known() {
            self.announce(&mut scan);
        }
        if self.announced {
            // Half an encoded JSON text can't be decoded: those arguments are left out.
            self.flush_arguments(&mut scan);
        } else {
            let raw = std::mem::take(&mut self.raw);
            // Only without a marker the names decide.
            if !(cut && (certain || self.any || self.known.is_none())) {
                scan.raw = raw;
            }
        }
        scan.over = true;
        scan.failed = true;
        scan
    }

    fn take(&mut self, char: char, scan: &mut Scan) -> Step {
        if !self.announced {
            self.raw.push(char);
        }
        let step = self.transition(char, scan);
        if matches!(step, Step::Again | Step::Fail) && !self.announced {
            self.raw.pop();
        }
        step
    }

    fn transition(&mut self, char: char, scan: &mut Scan) -> Step {
        let blank = char.is_whitespace();
        match self.state {
            State::BareName => return self.bare_name(char),
            State::KeyText => return self.key_text(char),
            State::Copy => return self.copy(char, scan),
            _ if blank => {}
            State::Begin => match char {
                '{' => self.state = State::Key,
                '[' => {
                    self.in_list = true;
                    self.state = State::ListItem;
                }
                _ if self.takes_bare_names() && is_name(char) => {
                    self.value.push(char);
                    self.state = State::BareName;
                }
                _ => return Step::Fail,
            },
            State::ListItem => match char {
                '{' => self.state = State::Key,
                ']' if self.any => return Step::Over,
                _ => return Step::Fail,
            },
            State::ListNext => match char {
                ',' => self.state = State::ListItem,
                ']' => return Step::Over,
                _ => return Step::Fail,
            },
            State::Key => match char {
                '"' => {
                    self.key.clear();
                    self.state = State::KeyText;
                }
                '}' => return self.close_object(scan),
                _ => return Step::Fail,
            },
            State::Colon if char == ':' => self.state = State::Value,
            State::Value => return self.begin_value(char),
            State::Next => match char {
                ',' => self.state = State::Key,
                '}' => return self.close_object(scan),
                _ => return Step::Fail,
            },
            State::Colon => return Step::Fail,
        }
        Step::Taken
    }

    fn takes_bare_names(&self) -> bool {
        self.raw.starts_with("[TOOL_CALLS]")
    }

    /// `name[ARGS]{…}`, `name[CALL_ID]id[ARGS]{…}` or `name{…}`.
    fn bare_name(&mut self, char: char) -> Step {
        if char == '{' {
            let name = self.value.split('[').next().unwrap_or("").trim();
            if name.is_empty() {
                return Step::Fail;
            }
            self.name = Some(name.to_owned());
            self.bare_form = true;
            self.state = State::Value;
            self.key = "arguments".into();
            return Step::Again;
        }
        let ok = is_name(char) || matches!(char, '[' | ']') || char.is_whitespace();
        if !ok || self.value.len() > 256 {
            return Step::Fail;
        }
        self.value.push(char);
        Step::Taken
    }

    fn key_text(&mut self, char: char) -> Step {
        match char {
            '"' => self.state = State::Colon,
            // No key of a call has escapes or is long.
            '\\' => return Step::Fail,
            _ if self.key.len() > 64 => return Step::Fail,
            _ => self.key.push(char),
        }
        Step::Taken
    }

    fn begin_value(&mut self, char: char) -> Step {
        if matches!(char, '}' | ']' | ',' | ':') {
            return Step::Fail;
        }
        if self.key == "function" && char == '{' && self.wrappers < 4 {
            self.wrappers += 1;
            self.state = State::Key;
            return Step::Taken;
        }
        self.using = match self.key.as_str() {
            "name" | "function" | "tool_name" if char == '"' && self.name.is_none() => Use::Name,
            "arguments" | "parameters" | "args" if !self.has_arguments => Use::Arguments,
            _ => Use::Skip,
        };
        self.streams = self.using == Use::Arguments && matches!(char, '{' | '[');
        self.value.clear();
        self.follower = Follower::default();
        self.state = State::Copy;
        Step::Again
    }

    fn copy(&mut self, char: char, scan: &mut Scan) -> Step {
        if self.using == Use::Arguments && !self.follower.started && self.name.is_some() {
            if !self.is_known() {
                return Step::Fail;
            }
            self.announce(scan);
        }
        match self.follower.follow(char) {
            Place::Inside => {
                self.keep(char);
                Step::Taken
            }
            Place::Last => {
                self.keep(char);
                self.finish_value(scan)
            }
            Place::After => match self.finish_value(scan) {
                Step::Taken => Step::Again,
                other => other,
            },
        }
    }

    fn keep(&mut self, char: char) {
        if self.using != Use::Skip {
            self.value.push(char);
        }
    }

    fn is_known(&self) -> bool {
        match (&self.known, &self.name) {
            (Some(known), Some(name)) => known.contains(name),
            (Some(_), None) => false,
            (None, _) => true,
        }
    }

    fn finish_value(&mut self, scan: &mut Scan) -> Step {
        let value = std::mem::take(&mut self.value);
        self.state = State::Next;
        match self.using {
            Use::Skip => {}
            Use::Name => match serde_json::from_str::<String>(&value) {
                Ok(name) if !name.is_empty() => self.name = Some(name),
                _ => return Step::Fail,
            },
            Use::Arguments => {
                self.has_arguments = true;
                if self.streams {
                    self.early.push_str(&value);
                } else {
                    self.early.push_str(&plain_arguments(value));
                }
                self.flush_arguments(scan);
                if self.bare_form {
                    self.reset_call();
                    return Step::Over;
                }
            }
        }
        Step::Taken
    }

    fn close_object(&mut self, scan: &mut Scan) -> Step {
        if self.wrappers > 0 {
            self.wrappers -= 1;
            self.state = State::Next;
            return Step::Taken;
        }
        if self.name.is_none() || !self.is_known() {
            return Step::Fail;
        }
        self.announce(scan);
        if !self.has_arguments {
            self.early.push_str("{}");
        }
        self.flush_arguments(scan);
        self.reset_call();
        if self.in_list {
            self.state = State::ListNext;
            Step::Taken
        } else {
            Step::Over
        }
    }

    fn announce(&mut self, scan: &mut Scan) {
        if self.announced {
            return;
        }
        self.announced = true;
        self.any = true;
        self.raw.clear();
        scan.deltas.push(Delta {
            index_in_answer: NEXT,
            name: self.name.clone(),
            ..Delta::default()
        });
    }

    /// Passes on the arguments so far, if the call is announced.
    fn flush_arguments(&mut self, scan: &mut Scan) {
        if !self.announced {
            return;
        }
        let mut arguments = std::mem::take(&mut self.early);
        // Arguments written as a JSON text are passed on whole, once they are decoded.
        if self.state == State::Copy && self.using == Use::Arguments && self.streams {
            arguments.push_str(&std::mem::take(&mut self.value));
        }
        if !arguments.is_empty() {
            match scan.deltas.last_mut() {
                Some(last) => last.arguments.push_str(&arguments),
                None => scan.deltas.push(Delta {
                    index_in_answer: NEXT,
                    arguments,
                    ..Delta::default()
                }),
            }
        }
    }

    fn reset_call(&mut self) {
        self.announced = false;
        self.raw.clear();
        self.name = None;
        self.has_arguments = false;
        self.early.clear();
        self.value.clear();
    }
}

/// What to do with a character.
enum Step {
    Taken,
    /// Look at it again in the new state.
    Again,
    /// It was the last one.
    Over,
    /// It does not fit.
    Fail,
}

fn is_name(char: char) -> bool {
    char.is_alphanumeric() || matches!(char, '_' | '-' | '.' | ':')
}

/// Some models write the arguments as a JSON text that holds JSON.
fn plain_arguments(value: String) -> String {
    if value.starts_with('"') {
        serde_json::from_str(&value).unwrap_or(value)
    } else if value == "null" {
        "{}".to_owned()
    } else {
        value
    }
}
