//! Owns the way of chunks over HTTP: ranges of a model's files at a hub, and no other bytes.
//! Whatever comes is checked against the manifest like everything else.

pub(super) mod range;

use std::io;
use std::time::Duration;

use gguf::limits::PARTS_MAX;
use gguf::{Fingerprint, Header, Model, Prefix, ReadError};
use range::{Range, content_range};
use reqwest::header::RANGE;
use reqwest::{Client, Response, StatusCode, redirect};
use tokio::time::{sleep, timeout};

use super::chunk::{Chunk, JobError, TensorTable};
use super::headers::{HEADERS_BYTES_MAX, Headers, HeadersError};
use super::source::{Fault, Fetching, Sink, Source, Tier};

/// Redirects of one request. Hubs send on once, to where the bytes lie.
const REDIRECTS_MAX: usize = 5;

/// How long reaching the hub may take.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(15);

/// How long the hub may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// How long one chunk may take, and the first answer of a request.
const CHUNK_TIME_MAX: Duration = Duration::from_secs(60);

/// Padding between two tensors, in bytes, that is fetched to save a request: that of the usual
/// alignment.
const PADDING_BYTES_MAX: u64 = 31;

/// Bytes of a file's beginning that are asked for first. Tables of small models fit.
const HEADER_BYTES_FIRST: u64 = 1 << 20;

/// How often reading a header is tried. Chunks are tried again by the schedule.
const HEADER_TRIES: u32 = 4;

/// Wait before the second try. Doubles with each.
const RETRY_WAIT: Duration = Duration::from_millis(500);

/// Where the hub has a model's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubFiles {
    /// Address of the hub, for instance `https://huggingface.co`.
    pub hub: String,
    /// Owner and name of the repository.
    pub repo: String,
    /// Which state of the repository, such as `main`.
    pub revision: String,
    /// The files, in the order of the model's parts.
    pub files: Vec<String>,
    /// Token of the user, for repositories that ask for one. Not sent to where the hub sends on.
    pub token: Option<String>,
}

impl HubFiles {
    fn url(&self, part: usize) -> Option<String> {
        let file = self.files.get(part)?;
        let hub = self.hub.trim_end_matches('/');
        let (repo, revision) = (&self.repo, &self.revision);
        Some(format!("{hub}/{repo}/resolve/{revision}/{file}"))
    }
}

/// A model's files at a hub.
#[derive(Debug, Clone)]
pub struct HttpSource {
    files: HubFiles,
    client: Client,
    /// Where the tensors lie, if not where the job's headers say.
    layout: Option<TensorTable>,
}

/// Bytes that follow each other in one file, and the chunks in them.
struct Run<'a> {
    part: usize,
    start: u64,
    end: u64,
    /// Each with its place in the batch.
    chunks: Vec<(usize, &'a Chunk)>,
}

impl HttpSource {
    /// A source of these files. Connects to nothing yet.
    ///
    /// # Errors
    /// When the TLS library cannot be set up.
    pub fn new(files: HubFiles) -> io::Result<Self> {
        let client = Client::builder()
            .redirect(redirect::Policy::custom(follow))
            .connect_timeout(CONNECT_TIME_MAX)
            .read_timeout(SILENCE_MAX)
            .user_agent(concat!("mesh-llm/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(io::Error::other)?;
        Ok(Self {
            files,
            client,
            layout: None,
        })
    }

    /// The same source, whose files divide the model as these headers say.
    ///
    /// # Errors
    /// When a tensor's size is not known.
    pub fn with_layout(self, model: &Model) -> Result<Self, JobError> {
        Ok(Self {
            layout: Some(TensorTable::of(model)?),
            ..self
        })
    }

    /// Reads the headers of all files and checks them against the fingerprint.
    ///
    /// # Errors
    /// When the hub does not give them, or they are of another model.
    pub async fn headers(&self, model: Fingerprint) -> Result<(Headers, Model), HeadersError> {
        if self.files.files.len() > PARTS_MAX as usize {
            return Err(HeadersError::Garbled("they have too many parts"));
        }
        let mut parts = Vec::new();
        let mut left = HEADERS_BYTES_MAX;
        for part in 0..self.files.files.len() {
            let (file_bytes, bytes) = self.header(part, left).await?;
            left = left.saturating_sub(bytes.len() as u64);
            parts.push((file_bytes, bytes));
        }
        let headers = Headers::from_parts(parts);
        let read = headers.model(model)?;
        Ok((headers, read))
    }

    /// One file's size and header, in larger and larger pieces.
    async fn header(&self, part: usize, bytes_max: u64) -> Result<(u64, Vec<u8>), HeadersError> {
        let mut bytes = Vec::new();
        let mut piece = HEADER_BYTES_FIRST;
        loop {
            let total = self.append(part, &mut bytes, piece).await;
            let total = total.map_err(ReadError::from)?;
            let prefix = Prefix {
                bytes: &bytes,
                total: Some(total),
            };
            let have = bytes.len() as u64;
            match Header::read(&prefix) {
                Ok(header) => {
                    bytes.truncate(usize::try_from(header.data_offset).unwrap_or(usize::MAX));
                    return Ok((total, bytes));
                }
                Err(ReadError::TruncatedHeader { .. }) if have < total && have < bytes_max => {
                    piece = have;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Appends the file's next bytes, up to `piece`, and returns the size of the file.
    async fn append(&self, part: usize, bytes: &mut Vec<u8>, piece: u64) -> io::Result<u64> {
        let start = bytes.len() as u64;
        let mut wait = RETRY_WAIT;
        for tried in 1.. {
            let kept = bytes.len();
            match self.try_append(part, bytes, start, piece).await {
                Ok(total) => return Ok(total),
                Err(Fault::Broken(_)) if tried < HEADER_TRIES => bytes.truncate(kept),
                Err(fault) => return Err(io::Error::other(fault)),
            }
            sleep(wait).await;
            wait *= 2;
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    async fn try_append(
        &self,
        part: usize,
        bytes: &mut Vec<u8>,
        start: u64,
        piece: u64,
    ) -> Result<u64, Fault> {
        let (mut response, range) = self.ask(part, start, start + piece).await?;
        // The file may end before.
        let wanted = (start + piece).min(range.total);
        if (range.start, range.end) != (start, wanted) {
            return Err(Fault::Gone("the hub answers another range".to_owned()));
        }
        let mut left = wanted - start;
        while left > 0 {
            let data = next(&mut response).await?;
            if data.is_empty() || data.len() as u64 > left {
                return Err(Fault::Broken("the hub breaks off".to_owned()));
            }
            left -= data.len() as u64;
            bytes.extend_from_slice(&data);
        }
        Ok(range.total)
    }

    /// Asks for a range and checks that this range is what comes.
    async fn ask(&self, part: usize, start: u64, end: u64) -> Result<(Response, Range), Fault> {
        let url = self.files.url(part);
        let url = url.ok_or_else(|| Fault::Gone("the hub lacks a part".to_owned()))?;
        let mut request = self.client.get(url);
        if let Some(token) = &self.files.token {
            request = request.bearer_auth(token);
        }
        let last = end.saturating_sub(1);
        let sent = request
            .header(RANGE, format!("bytes={start}-{last}"))
            .send();
        let response = match timeout(CHUNK_TIME_MAX, sent).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) if error.is_redirect() || error.is_builder() => {
                return Err(Fault::Gone(why(&error)));
            }
            Ok(Err(error)) => return Err(Fault::Broken(why(&error))),
            Err(_) => return Err(Fault::Broken("the hub does not answer".to_owned())),
        };
        match response.status() {
            StatusCode::PARTIAL_CONTENT => {}
            // Reading on would fetch the whole file.
            StatusCode::OK => return Err(Fault::Gone("the hub does not give ranges".to_owned())),
            status if is_passing(status) => {
                return Err(Fault::Broken(format!("the hub answers {status}")));
            }
            status => return Err(Fault::Gone(format!("the hub answers {status}"))),
        }
        let range = content_range(response.headers());
        let range =
            range.ok_or_else(|| Fault::Gone("the hub does not say its range".to_owned()))?;
        Ok((response, range))
    }

    async fn fetch_run(&self, run: &Run<'_>, sink: &Sink) -> Result<(), Fault> {
        let (mut response, range) = self.ask(run.part, run.start, run.end).await?;
        if (range.start, range.end) != (run.start, run.end) {
            return Err(Fault::Gone("the hub answers another range".to_owned()));
        }
        let mut at = run.start;
        let mut data = Vec::new();
        for &(place, chunk) in &run.chunks {
            let len = chunk.len() as usize;
            let skip = (chunk.origin.bytes.start - at) as usize;
            let filled = async {
                while data.len() < skip + len {
                    let more = next(&mut response).await?;
                    if more.is_empty() {
                        return Err(Fault::Broken("the hub breaks off".to_owned()));
                    }
                    data.extend_from_slice(&more);
                }
                Ok(())
            };
            let late = |_| Fault::Broken("the hub is too slow".to_owned());
            timeout(CHUNK_TIME_MAX, filled).await.map_err(late)??;
            let rest = data.split_off(skip + len);
            sink.chunk(place, data.split_off(skip)).await;
            data = rest;
            at = chunk.origin.bytes.end;
        }
        Ok(())
    }
}

impl Source for HttpSource {
    fn name(&self) -> String {
        self.files.hub.clone()
    }

    fn tier(&self) -> Tier {
        Tier::Hub
    }

    fn has(&self, _: u32) -> bool {
        true
    }

    fn fetch<'a>(&'a self, chunks: &'a [Chunk], sink: &'a Sink) -> Fetching<'a> {
        Box::pin(async move {
            let mut chunks = chunks.to_vec();
            for chunk in &mut chunks {
                if let Some(origin) = self.layout.as_ref().and_then(|l| l.origin(chunk.id)) {
                    chunk.origin = origin;
                }
            }
            for run in runs(&chunks) {
                self.fetch_run(&run, sink).await?;
            }
            Ok(())
        })
    }
}

/// Joins chunks that lie together.
fn runs(chunks: &[Chunk]) -> Vec<Run<'_>> {
    let mut sorted: Vec<_> = chunks.iter().enumerate().collect();
    sorted.sort_by_key(|(_, c)| (c.origin.part, c.origin.bytes.start));
    let mut out: Vec<Run<'_>> = Vec::new();
    for (place, chunk) in sorted {
        let bytes = &chunk.origin.bytes;
        match out.last_mut() {
            Some(run)
                if run.part == chunk.origin.part
                    && (run.end..=run.end.saturating_add(PADDING_BYTES_MAX))
                        .contains(&bytes.start) =>
            {
                run.end = bytes.end;
                run.chunks.push((place, chunk));
            }
            _ => out.push(Run {
                part: chunk.origin.part,
                start: bytes.start,
                end: bytes.end,
                chunks: vec![(place, chunk)],
            }),
        }
    }
    out
}

/// Follows a few redirects, none of them to a connection that anybody can read.
fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let before = attempt.previous();
    if before.len() > REDIRECTS_MAX {
        return attempt.error("too many redirects");
    }
    let was_secret = before.last().is_some_and(|url| url.scheme() == "https");
    if was_secret && attempt.url().scheme() != "https" {
        return attempt.error("a redirect from https to something else");
    }
    attempt.follow()
}

/// The next bytes of a body; none at its end.
async fn next(response: &mut Response) -> Result<Vec<u8>, Fault> {
    match response.chunk().await {
        Ok(data) => Ok(data.map(Vec::from).unwrap_or_default()),
        Err(error) => Err(Fault::Broken(why(&error))),
    }
}

/// Answers that a later request may not get.
fn is_passing(status: StatusCode) -> bool {
    status.is_server_error()
        || matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
        )
}

/// An error and its causes, without the address: hubs put signatures into it.
fn why(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    if cause.source().is_none() && std::ptr::addr_eq(cause, error) {
        return "the hub cannot be asked".to_owned();
    }
    format!("the hub cannot be asked: {cause}")
}
