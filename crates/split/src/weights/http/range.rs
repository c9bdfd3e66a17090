//! Owns the range that an HTTP answer says it brings.

use reqwest::header::{CONTENT_RANGE, HeaderMap};

/// A range of a file, and its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Range {
    pub(in super::super) start: u64,
    pub(in super::super) end: u64,
    pub(in super::super) total: u64,
}

pub(in super::super) fn content_range(headers: &HeaderMap) -> Option<Range> {
    parse_range(headers.get(CONTENT_RANGE)?.to_str().ok()?)
}

/// Reads `bytes 0-99/1000`.
fn parse_range(text: &str) -> Option<Range> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (start, last) = range.split_once('-')?;
    let start: u64 = start.parse().ok()?;
    let end = last.parse::<u64>().ok()?.checked_add(1)?;
    let total = total.parse().ok()?;
    (start < end && end <= total).then_some(Range { start, end, total })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_are_read() {
        let range = |start, end, total| Some(Range { start, end, total });
        for (text, expected) in [
            ("bytes 0-0/1", range(0, 1, 1)),
            ("bytes 5-99/1000", range(5, 100, 1000)),
            ("bytes 5-99/99", None),
            ("bytes 9-5/99", None),
            ("bytes */99", None),
            ("bytes 0-9/*", None),
            ("items 0-9/10", None),
            ("bytes 0-18446744073709551615/18446744073709551615", None),
        ] {
            assert_eq!(parse_range(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn foreign_ranges_do_no_harm(text in "(bytes )?[0-9*/ -]{0,60}") {
            if let Some(range) = parse_range(&text) {
                prop_assert!(range.start < range.end && range.end <= range.total);
            }
        }
    }
}
