//! Server-sent events, as far as OpenAI's dialect uses them: the `data` lines
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).

use std::collections::VecDeque;

use crate::Error;

/// Longest event, bytes. A chunk is some hundred bytes; a whole answer in one chunk fits too.
const EVENT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Cuts a stream of bytes into the data of its events.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// Bytes of a line that has no end yet.
    line: Vec<u8>,
    /// Data of an event that has no end yet.
    data: Option<String>,
    ready: VecDeque<String>,
}

impl Lines {
    /// Takes the next bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.line.extend_from_slice(&rest[..end]);
            rest = &rest[end + 1..];
            let line = std::mem::take(&mut self.line);
            self.end_line(line.strip_suffix(b"\r").unwrap_or(&line));
        }
        self.line.extend_from_slice(rest);
        let held = self.line.len() + self.data.as_ref().map_or(0, String::len);
        if held > EVENT_BYTES_MAX {
            return Err(Error::Protocol(format!(
                "an event is longer than {EVENT_BYTES_MAX} bytes"
            )));
        }
        Ok(())
    }

    /// The data of the next complete event.
    pub(crate) fn next_data(&mut self) -> Option<String> {
        self.ready.pop_front()
    }

    fn end_line(&mut self, line: &[u8]) {
        if line.is_empty() {
            self.ready.extend(self.data.take());
            return;
        }
        // Comments, event names and identifiers say nothing here.
        let Some(value) = line.strip_prefix(b"data:") else {
            return;
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        let text = String::from_utf8_lossy(value);
        match &mut self.data {
            Some(data) => {
                data.push('\n');
                data.push_str(&text);
            }
            None => self.data = Some(text.into_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{EVENT_BYTES_MAX, Lines};

    fn events(pieces: &[&[u8]]) -> Vec<String> {
        let mut lines = Lines::default();
        let mut events = Vec::new();
        for piece in pieces {
            lines.push(piece).unwrap();
            while let Some(data) = lines.next_data() {
                events.push(data);
            }
        }
        events
    }

    #[test]
    fn finds_the_data() {
        let stream = ": hello\r\n\r\nevent: x\ndata: a\ndata:b\nid: 3\n\ndata: ü\r\n\r\ndata: cut";
        assert_eq!(events(&[stream.as_bytes()]), ["a\nb", "ü"]);
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut lines = Lines::default();
        let piece = vec![b'x'; EVENT_BYTES_MAX / 2];
        assert!(lines.push(&piece).is_ok() && lines.push(&piece).is_ok());
        assert!(lines.push(b"x").is_err());
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(bytes: Vec<u8>, cuts: Vec<u8>) {
            let mut stream = b"data: \xc3\xa4 {}\n\n".to_vec();
            stream.extend(bytes);
            let mut pieces: Vec<&[u8]> = Vec::new();
            let mut rest = stream.as_slice();
            for cut in cuts {
                let (head, tail) = rest.split_at(usize::from(cut).min(rest.len()));
                pieces.push(head);
                rest = tail;
            }
            pieces.push(rest);
            prop_assert_eq!(events(&pieces), events(&[&stream]));
        }
    }
}
