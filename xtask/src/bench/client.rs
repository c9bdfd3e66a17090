//! A small streaming client: one request on one connection, and when each token came.
//!
//! Plain blocking sockets, because the client shares the cores with the server that it measures.
//! Knows only what an OpenAI-compatible server sends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::json;

/// No server here needs longer between two bytes; one that does hangs.
const READ_WAIT_MAX: Duration = Duration::from_secs(120);

/// A loopback server that does not accept within this is not running.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(5);

/// One event of a stream holds one token; the last one holds usage and timings.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// Enough of an error body to understand it.
const ERROR_BYTES_MAX: u64 = 2_000;

/// Where requests go.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    pub(super) address: SocketAddr,
    /// What the server calls the model.
    pub(super) model: String,
}

/// What one request saw. Times are absolute, so that streams can be laid side by side.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    pub(super) start: Instant,
    /// When each piece of text came; mostly one token each.
    pub(super) times: Vec<Instant>,
    pub(super) prompt_tokens: usize,
    pub(super) completion_tokens: usize,
}

impl Stream {
    /// Milliseconds from the request to its first token.
    pub(super) fn first_token_ms(&self) -> Option<f64> {
        Some(milliseconds(self.times.first()?.duration_since(self.start)))
    }

    /// Tokens per second after the first one.
    pub(super) fn decode_tps(&self) -> Option<f64> {
        let (first, last) = (self.times.first()?, self.times.last()?);
        let seconds = last.duration_since(*first).as_secs_f64();
        Some(self.completion_tokens.saturating_sub(1) as f64 / seconds)
    }

    /// Longest time between two tokens, of which the later came after `since`.
    pub(super) fn longest_gap_ms(&self, since: Instant) -> Option<f64> {
        let pairs = self.times.iter().zip(self.times.iter().skip(1));
        pairs
            .filter(|(_, later)| **later > since)
            .map(|(earlier, later)| milliseconds(later.duration_since(*earlier)))
            .reduce(f64::max)
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Usage>,
    error: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    delta: Delta,
}

#[derive(Default, Deserialize)]
struct Delta {
    content: Option<String>,
    reasoning_content: Option<String>,
}

impl Delta {
    fn has_text(&self) -> bool {
        let filled = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        filled(&self.content) || filled(&self.reasoning_content)
    }
}

#[derive(Clone, Copy, Deserialize)]
struct Usage {
    prompt_tokens: usize,
    completion_tokens: usize,
}

impl Endpoint {
    /// Asks for exactly `tokens` tokens, greedily.
    pub(super) fn chat(&self, text: &str, tokens: usize) -> Result<Stream> {
        self.chat_with(text, tokens, |_| {})
    }

    /// The same; `on_piece` hears how many pieces have come.
    pub(super) fn chat_with(
        &self,
        text: &str,
        tokens: usize,
        mut on_piece: impl FnMut(usize),
    ) -> Result<Stream> {
        let body = json!({
            "model": self.model,
            "messages": [{ "role": "user", "content": text }],
            "max_tokens": tokens,
            "temperature": 0,
            "ignore_eos": true,
            "stream": true,
            "stream_options": { "include_usage": true },
        })
        .to_string();
        let start = Instant::now();
        let mut reader = self.send("POST", "/v1/chat/completions", &body)?;
        let mut times = Vec::with_capacity(tokens);
        let mut usage = None;
        let mut line = Vec::new();
        loop {
            line.clear();
            if (&mut reader)
                .take(LINE_BYTES_MAX)
                .read_until(b'\n', &mut line)?
                == 0
            {
                break;
            }
            let Some(data) = line
                .strip_prefix(b"data: ")
                .filter(|data| data.starts_with(b"{"))
            else {
                continue;
            };
            let now = Instant::now();
            let chunk: Chunk = serde_json::from_slice(data)
                .context("an event of the stream is not the JSON expected")?;
            if let Some(error) = chunk.error {
                bail!("the stream ended with an error: {error}");
            }
            usage = chunk.usage.or(usage);
            if chunk
                .choices
                .first()
                .is_some_and(|choice| choice.delta.has_text())
            {
                times.push(now);
                on_piece(times.len());
            }
        }
        let usage = usage.context("the stream ended without usage")?;
        ensure!(!times.is_empty(), "the stream ended without a token");
        ensure!(
            usage.completion_tokens == tokens,
            "asked for {tokens} tokens and got {}: rates would not compare",
            usage.completion_tokens
        );
        Ok(Stream {
            start,
            times,
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
        })
    }

    /// Sends one request; the reader gives the body of a successful answer.
    fn send(&self, method: &str, path: &str, body: &str) -> Result<Box<dyn BufRead>> {
        send(self.address, method, path, body)
    }
}

/// Fetches a JSON document.
pub(super) fn get(address: SocketAddr, path: &str) -> Result<serde_json::Value> {
    let reader = send(address, "GET", path, "")?;
    Ok(serde_json::from_reader(reader.take(LINE_BYTES_MAX))?)
}

fn send(address: SocketAddr, method: &str, path: &str, body: &str) -> Result<Box<dyn BufRead>> {
    let mut stream = TcpStream::connect_timeout(&address, CONNECT_WAIT_MAX)
        .context("the server does not accept")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(READ_WAIT_MAX))?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes())?;
    let mut reader = BufReader::new(stream);
    let status = header_line(&mut reader)?;
    let mut chunked = false;
    loop {
        let header = header_line(&mut reader)?.to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        chunked |= header.starts_with("transfer-encoding:") && header.ends_with("chunked");
    }
    let mut body: Box<dyn BufRead> = if chunked {
        Box::new(BufReader::new(ChunkedBody {
            inner: reader,
            left: 0,
            ended: false,
        }))
    } else {
        Box::new(reader)
    };
    if status.split(' ').nth(1) != Some("200") {
        let mut text = Vec::new();
        body.by_ref().take(ERROR_BYTES_MAX).read_to_end(&mut text)?;
        bail!("{status}: {}", String::from_utf8_lossy(&text));
    }
    Ok(body)
}

/// One header line without its end.
fn header_line(reader: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    let count = reader.take(LINE_BYTES_MAX).read_line(&mut line)?;
    ensure!(
        count > 0,
        "the server closed the connection before it answered"
    );
    Ok(line.trim_end().to_owned())
}

/// The body of an answer in chunks (RFC 9112, section 7.1). Extensions and trailers are skipped.
struct ChunkedBody<R> {
    inner: R,
    /// Bytes of the current chunk that were not read yet.
    left: u64,
    ended: bool,
}

impl<R: BufRead> Read for ChunkedBody<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let invalid =
            || std::io::Error::new(std::io::ErrorKind::InvalidData, "a chunk has no size");
        if self.ended || buffer.is_empty() {
            return Ok(0);
        }
        if self.left == 0 {
            let mut line = String::new();
            // A chunk is followed by an empty line; the first one is not.
            while line.trim().is_empty() {
                line.clear();
                if (&mut self.inner)
                    .take(LINE_BYTES_MAX)
                    .read_line(&mut line)?
                    == 0
                {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
            }
            let size = line.split(';').next().unwrap_or_default().trim();
            self.left = u64::from_str_radix(size, 16).map_err(|_| invalid())?;
            if self.left == 0 {
                self.ended = true;
                return Ok(0);
            }
        }
        let count = (&mut self.inner).take(self.left).read(buffer)?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unchunk(bytes: &[u8]) -> std::io::Result<String> {
        let mut text = String::new();
        ChunkedBody {
            inner: bytes,
            left: 0,
            ended: false,
        }
        .read_to_string(&mut text)?;
        Ok(text)
    }

    #[test]
    fn puts_chunks_together() {
        assert_eq!(
            unchunk(b"3\r\nabc\r\nA;x=1\r\n0123456789\r\n0\r\n\r\n").unwrap(),
            "abc0123456789"
        );
        assert!(unchunk(b"3\r\nab").is_err());
        assert!(unchunk(b"zz\r\n").is_err());
    }

    fn stream(offsets_ms: &[u64]) -> Stream {
        let start = Instant::now();
        let times = offsets_ms
            .iter()
            .map(|offset| start + Duration::from_millis(*offset))
            .collect::<Vec<_>>();
        Stream {
            start,
            completion_tokens: times.len(),
            times,
            prompt_tokens: 1,
        }
    }

    #[test]
    fn reads_rates_and_gaps_off_the_times() {
        let stream = stream(&[100, 150, 900, 1100]);
        assert_eq!(stream.first_token_ms(), Some(100.0));
        assert_eq!(stream.decode_tps(), Some(3.0));
        assert_eq!(stream.longest_gap_ms(stream.start), Some(750.0));
        assert_eq!(stream.longest_gap_ms(stream.times[2]), Some(200.0));
        assert_eq!(stream.longest_gap_ms(stream.times[3]), None);
    }

    /// Serves one canned answer and returns the client's view of it.
    fn against(answer: &'static str, tokens: usize) -> Result<Stream> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(socket.try_clone().unwrap());
            let mut length = 0;
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                if let Some(value) = line.strip_prefix("Content-Length: ") {
                    length = value.trim().parse().unwrap();
                }
                if line == "\r\n" {
                    break;
                }
            }
            reader.read_exact(&mut vec![0; length]).unwrap();
            socket.write_all(answer.as_bytes()).unwrap();
        });
        let stream = Endpoint {
            address,
            model: "m".into(),
        }
        .chat("1", tokens);
        server.join().unwrap();
        stream
    }

    #[test]
    fn reads_a_stream_of_events() {
        let answer = "HTTP/1.1 200 OK\r\n\r\ndata: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":null}}]}\n\n\
             data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n\
             data: {\"choices\":[{\"delta\":{\"content\":\"b\"}}]}\n\n\
             data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n";
        let stream = against(answer, 2).unwrap();
        assert_eq!(
            (
                stream.times.len(),
                stream.prompt_tokens,
                stream.completion_tokens
            ),
            (2, 7, 2)
        );
        let error = against(answer, 3).unwrap_err().to_string();
        assert!(error.contains("asked for 3 tokens and got 2"), "{error}");
    }

    #[test]
    fn shows_what_the_server_refused() {
        let error = against("HTTP/1.1 400 Bad Request\r\n\r\n{\"error\":\"no\"}", 1)
            .unwrap_err()
            .to_string();
        assert_eq!(error, "HTTP/1.1 400 Bad Request: {\"error\":\"no\"}");
    }
}
