//! Python's way of writing values, which templates rely on: `str()`, `json.dumps`, `strftime`.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind, Output, State};

use crate::text::literal::is_mark;

/// Deepest nesting that is written; JSON from requests is at most 128 deep.
const DEPTH_MAX: usize = 160;
/// Longest text that one value may become, bytes. Lists that hold one list twice, again and
/// again, would grow without end.
const TEXT_BYTES_MAX: usize = 4 << 20;

/// minijinja's formatter: what `{{ value }}` prints.
pub(super) fn write(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    match value.kind() {
        ValueKind::Bool | ValueKind::None | ValueKind::Map | ValueKind::Seq => {
            let text = text(value)?;
            state.consume_fuel(text.len() as u64 / 64)?;
            out.write_str(&text).map_err(Error::from)
        }
        _ => minijinja::escape_formatter(out, state, value),
    }
}

/// Python's `str(value)`.
pub(super) fn text(value: &Value) -> Result<String, Error> {
    let mut out = String::new();
    match value.kind() {
        ValueKind::String => out.push_str(value.as_str().unwrap_or("")),
        _ => repr(&mut out, value, 0)?,
    }
    Ok(out)
}

fn repr(out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
    check_size(out, depth)?;
    match value.kind() {
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::String => quote(out, value.as_str().unwrap_or("")),
        ValueKind::Seq => {
            out.push('[');
            for (index, item) in value.try_iter()?.enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                repr(out, &item, depth + 1)?;
            }
            out.push(']');
        }
        ValueKind::Map => {
            out.push('{');
            for (index, key) in value.try_iter()?.enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                repr(out, &key, depth + 1)?;
                out.push_str(": ");
                repr(out, &value.get_item(&key)?, depth + 1)?;
            }
            out.push('}');
        }
        _ => {
            let _ = write!(out, "{value}");
        }
    }
    Ok(())
}

fn quote(out: &mut String, text: &str) {
    let mark = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    out.push(mark);
    for char in text.chars() {
        match char {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            _ if char == mark => {
                out.push('\\');
                out.push(char);
            }
            _ => out.push(char),
        }
    }
    out.push(mark);
}

/// How `tojson` lays out its text.
struct Layout {
    indent: Option<usize>,
    item: String,
    key: String,
    sorted: bool,
    ascii: bool,
}

/// Python's `json.dumps(value, ensure_ascii=False)` with Hugging Face's keyword arguments.
pub(super) fn to_json(state: &mut State, value: Value, kwargs: Kwargs) -> Result<String, Error> {
    let indent = kwargs.get::<Option<usize>>("indent")?.map(|n| n.min(16));
    let separators = kwargs.get::<Option<Vec<String>>>("separators")?;
    let item = if indent.is_some() { "," } else { ", " };
    let (item, key) = match separators.as_deref() {
        Some([item, key]) => (item.clone(), key.clone()),
        _ => (item.to_owned(), ": ".to_owned()),
    };
    let layout = Layout {
        indent,
        item,
        key,
        sorted: kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        ascii: kwargs.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
    };
    kwargs.assert_all_used()?;
    let mut out = String::new();
    dump(&mut out, &value, &layout, 0)?;
    // Charged like minijinja charges its own serialisation: a quarter unit per 16 bytes.
    state.consume_fuel(out.len() as u64 / 16)?;
    Ok(out)
}

fn dump(out: &mut String, value: &Value, layout: &Layout, depth: usize) -> Result<(), Error> {
    check_size(out, depth)?;
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Undefined => {
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                "an undefined value can't be written as JSON",
            ));
        }
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => {
            let _ = write!(out, "{value}");
        }
        ValueKind::String => dump_text(out, value.as_str().unwrap_or(""), layout.ascii),
        ValueKind::Map => dump_map(out, value, layout, depth)?,
        _ => {
            out.push('[');
            let mut any = false;
            for item in value.try_iter()? {
                separate(out, layout, depth, any);
                any = true;
                dump(out, &item, layout, depth + 1)?;
            }
            close(out, layout, depth, any, ']');
        }
    }
    Ok(())
}

fn dump_map(out: &mut String, value: &Value, layout: &Layout, depth: usize) -> Result<(), Error> {
    let mut keys: Vec<Value> = value.try_iter()?.collect();
    if layout.sorted {
        keys.sort();
    }
    out.push('{');
    let mut any = false;
    for key in keys {
        separate(out, layout, depth, any);
        any = true;
        dump_text(out, &text(&key)?, layout.ascii);
        out.push_str(&layout.key);
        dump(out, &value.get_item(&key)?, layout, depth + 1)?;
    }
    close(out, layout, depth, any, '}');
    Ok(())
}

fn separate(out: &mut String, layout: &Layout, depth: usize, follows: bool) {
    if follows {
        out.push_str(&layout.item);
    }
    if let Some(width) = layout.indent {
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', width * (depth + 1)));
    }
}

fn close(out: &mut String, layout: &Layout, depth: usize, any: bool, mark: char) {
    if let (Some(width), true) = (layout.indent, any) {
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', width * depth));
    }
    out.push(mark);
}

fn dump_text(out: &mut String, text: &str, ascii: bool) {
    out.push('"');
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            _ if u32::from(char) < 0x20 || (ascii && !char.is_ascii() && !is_mark(char)) => {
                let mut units = [0; 2];
                for unit in char.encode_utf16(&mut units) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            _ => out.push(char),
        }
    }
    out.push('"');
}

fn check_size(out: &str, depth: usize) -> Result<(), Error> {
    if out.len() > TEXT_BYTES_MAX {
        return Err(Error::new(
            ErrorKind::OutOfFuel,
            "the value is too long to be written",
        ));
    }
    if depth > DEPTH_MAX {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            "the value is nested too deeply",
        ));
    }
    Ok(())
}

/// The current UTC time in the format of Python's `strftime`.
pub(super) fn strftime_now(format: String) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    strftime(&format, now)
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = [
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
];

/// `unix_s` (UTC) in the format of Python's `strftime`; directives that are not known stay.
fn strftime(format: &str, unix_s: u64) -> String {
    let days = unix_s / 86_400;
    let (hour, minute, second) = (unix_s / 3600 % 24, unix_s / 60 % 60, unix_s % 60);
    let (year, month, day) = civil(days);
    let (new_year, weekday) = (day_of_year(year, month, day), (days % 7) as usize);
    let (month_name, day_name) = (MONTHS[month - 1], DAYS[weekday]);
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(char) = chars.next() {
        if char != '%' {
            out.push(char);
            continue;
        }
        let _ = match chars.next() {
            Some('Y') => write!(out, "{year}"),
            Some('y') => write!(out, "{:02}", year % 100),
            Some('m') => write!(out, "{month:02}"),
            Some('d') => write!(out, "{day:02}"),
            Some('e') => write!(out, "{day:2}"),
            Some('j') => write!(out, "{new_year:03}"),
            Some('B') => out.write_str(month_name),
            Some('b' | 'h') => out.write_str(&month_name[..3]),
            Some('A') => out.write_str(day_name),
            Some('a') => out.write_str(&day_name[..3]),
            Some('H') => write!(out, "{hour:02}"),
            Some('I') => write!(out, "{:02}", (hour + 11) % 12 + 1),
            Some('p') => out.write_str(if hour < 12 { "AM" } else { "PM" }),
            Some('M') => write!(out, "{minute:02}"),
            Some('S') => write!(out, "{second:02}"),
            Some('F') => write!(out, "{year}-{month:02}-{day:02}"),
            Some('T') => write!(out, "{hour:02}:{minute:02}:{second:02}"),
            Some('Z') => out.write_str("UTC"),
            Some('z') => out.write_str("+0000"),
            Some('%') => out.write_str("%"),
            Some(other) => write!(out, "%{other}"),
            None => out.write_str("%"),
        };
    }
    out
}

/// Year, month (1 to 12) and day (1 to 31) of a day since 1970-01-01 in the Gregorian calendar.
fn civil(mut days: u64) -> (u64, usize, u64) {
    // 400 years repeat; anything beyond is skipped in one step, so that no clock loops long.
    let mut year = 1970 + days / 146_097 * 400;
    days %= 146_097;
    loop {
        let length = if is_leap(year) { 366 } else { 365 };
        if days < length {
            break;
        }
        days -= length;
        year += 1;
    }
    let mut month = 1;
    for length in month_lengths(year) {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

fn day_of_year(year: u64, month: usize, day: u64) -> u64 {
    month_lengths(year).iter().take(month - 1).sum::<u64>() + day
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn month_lengths(year: u64) -> [u64; 12] {
    let february = if is_leap(year) { 29 } else { 28 };
    [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
}

#[cfg(test)]
mod tests {
    use super::strftime;

    #[test]
    fn strftime_writes_what_python_writes() {
        for (format, unix_s, expected) in [
            ("%d %b %Y", 1_722_470_400, "01 Aug 2024"),
            ("%Y-%m-%d", 1_709_164_800, "2024-02-29"),
            ("%A, %B %e %j", 1_709_164_800, "Thursday, February 29 060"),
            ("%H:%M:%S %I%p", 86_399, "23:59:59 11PM"),
            ("100%% %Q %", 0, "100% %Q %"),
            ("%F", 4_102_444_799, "2099-12-31"),
        ] {
            assert_eq!(strftime(format, unix_s), expected);
        }
    }
}
