//! Finds markers in text that is still growing.

/// White space that is held back until it is known whether a marker follows, bytes. A model
/// that writes nothing else must not be searched from the start at every token.
pub(super) const BLANK_BYTES_MAX: usize = 256;

/// What a search found.
pub(super) enum Found {
    /// A whole marker starts at this byte.
    At(usize, &'static str),
    /// Text up to this byte is no part of a marker; what follows may be.
    Perhaps(usize),
}

/// The first marker in `text`; among those that start at one place the longest.
pub(super) fn find_first(text: &str, markers: &[&'static str]) -> Found {
    let first = markers
        .iter()
        .filter_map(|marker| Some((text.find(marker)?, *marker)))
        .min_by_key(|(at, marker)| (*at, std::cmp::Reverse(marker.len())));
    match first {
        Some((at, marker)) => Found::At(at, marker),
        None => Found::Perhaps(text.len() - partial(text, markers)),
    }
}

/// Length of `text` without the white space at its end, as far as that may be held back.
pub(super) fn without_blank_end(text: &str) -> usize {
    let length = text.trim_end().len();
    if text.len() - length > BLANK_BYTES_MAX {
        text.len()
    } else {
        length
    }
}

/// Length of the longest end of `text` that may become a marker.
fn partial(text: &str, markers: &[&'static str]) -> usize {
    let longest = markers.iter().map(|marker| marker.len()).max().unwrap_or(0);
    let mut from = text.len().saturating_sub(longest.saturating_sub(1));
    while !text.is_char_boundary(from) {
        from += 1;
    }
    text[from..]
        .char_indices()
        .map(|(at, _)| &text[from + at..])
        .find(|end| markers.iter().any(|marker| marker.starts_with(end)))
        .map_or(0, str::len)
}
