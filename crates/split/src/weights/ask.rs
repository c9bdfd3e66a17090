//! Owns the asking side of the protocol between members: one stream for each ask, and a bound for
//! every wait and every length.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use gguf::{Fingerprint, Model};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::chunk::{Chunk, SliceJob};
use super::headers::{HEADERS_BYTES_MAX, Headers, HeadersError};
use super::manifest::{Manifest, ManifestError};
use super::place::{HubPlace, PLACE_BYTES_MAX};
use super::source::{Fault, Fetching, Sink, Source, Tier};
use super::wire::{
    ANSWER_BYTES_MAX, Answer, Ask, HOLDINGS_BYTES_MAX, Refusal, read_frame, write_ask,
};

/// How long opening a stream and asking may take: a relay and some lost packets.
const OPEN_TIME_MAX: Duration = Duration::from_secs(15);

/// How long one frame may take: a chunk at 140 kbit/s. Before that, others that have nothing to do
/// fetch the same chunk.
const FRAME_TIME_MAX: Duration = Duration::from_secs(60);

/// How long a holder may be alive without an answer: hashing 360 GB at 100 MB/s.
const ALIVE_TIME_MAX: Duration = Duration::from_secs(3_600);

/// How long a body may take once it comes: the largest headers at 1 MB/s.
const BODY_TIME_MAX: Duration = Duration::from_secs(300);

/// Opens streams to one member. A stream carries one ask; dropping its halves ends it.
pub trait Dial: Send + Sync + 'static {
    /// The half that is read.
    type Recv: AsyncRead + Unpin + Send;
    /// The half that is written.
    type Send: AsyncWrite + Unpin + Send;
    /// A new stream.
    fn open(&self) -> impl Future<Output = io::Result<(Self::Recv, Self::Send)>> + Send;
}

/// Why a member did not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// It refuses.
    #[error("{0}")]
    Refused(String),
    /// It cannot be reached, or left.
    #[error("cannot reach it: {0}")]
    Lost(String),
    /// It says nothing, or never comes to an end.
    #[error("it does not answer in time")]
    Silent,
    /// It breaks the protocol.
    #[error("it answers nonsense: {0}")]
    Nonsense(String),
    /// Its headers are of no use.
    #[error(transparent)]
    Headers(#[from] HeadersError),
    /// Its manifest is of no use.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

impl AskError {
    /// Whether to ask again later.
    fn into_fault(self) -> Fault {
        match self {
            Self::Lost(_) | Self::Silent => Fault::Broken(self.to_string()),
            _ => Fault::Gone(self.to_string()),
        }
    }
}

/// One ask on its way.
struct Asked<D: Dial> {
    recv: D::Recv,
    /// Dropping it would tell the holder to stop.
    _send: D::Send,
}

impl<D: Dial> Asked<D> {
    async fn ask(dial: &D, ask: &Ask) -> Result<Self, AskError> {
        let asking = async {
            let (recv, mut send) = dial.open().await?;
            write_ask(&mut send, ask).await?;
            Ok::<_, io::Error>(Self { recv, _send: send })
        };
        match timeout(OPEN_TIME_MAX, asking).await {
            Ok(Ok(asked)) => Ok(asked),
            Ok(Err(error)) => Err(AskError::Lost(error.to_string())),
            Err(_) => Err(AskError::Silent),
        }
    }

    async fn frame(&mut self) -> Result<Answer, AskError> {
        let frame = timeout(FRAME_TIME_MAX, read_frame(&mut self.recv, ANSWER_BYTES_MAX)).await;
        let frame = match frame {
            Ok(Ok(Some(frame))) => frame,
            Ok(Ok(None)) => return Err(AskError::Lost("it broke off".to_owned())),
            Ok(Err(error @ super::wire::FrameError::TooLong { .. })) => {
                return Err(AskError::Nonsense(error.to_string()));
            }
            Ok(Err(error)) => return Err(AskError::Lost(error.to_string())),
            Err(_) => return Err(AskError::Silent),
        };
        Answer::from_bytes(frame).map_err(|error| AskError::Nonsense(error.to_string()))
    }

    /// The next answer that is more than a sign of life.
    async fn answer(&mut self, time_max: Duration) -> Result<Answer, AskError> {
        let next = async {
            loop {
                match self.frame().await? {
                    Answer::Alive => {}
                    answer => return Ok(answer),
                }
            }
        };
        timeout(time_max, next)
            .await
            .map_err(|_| AskError::Silent)?
    }

    async fn body(mut self, bytes_max: u64) -> Result<Vec<u8>, AskError> {
        let total = match self.answer(ALIVE_TIME_MAX).await? {
            Answer::Body(total) if total <= bytes_max => total as usize,
            Answer::Body(total) => {
                let why = format!("{total} bytes where at most {bytes_max} are allowed");
                return Err(AskError::Nonsense(why));
            }
            answer => return Err(unexpected(answer)),
        };
        let read = async {
            // Grows with what comes: the total is only a claim.
            let mut body = Vec::new();
            while body.len() < total {
                match self.frame().await? {
                    Answer::Data(data) if data.len() <= total - body.len() => body.extend(data),
                    answer => return Err(unexpected(answer)),
                }
            }
            Ok(body)
        };
        timeout(BODY_TIME_MAX, read)
            .await
            .map_err(|_| AskError::Silent)?
    }
}

fn unexpected(answer: Answer) -> AskError {
    match answer {
        Answer::Refused(Refusal::Busy) => AskError::Lost(Refusal::Busy.to_string()),
        Answer::Refused(refusal) => AskError::Refused(refusal.to_string()),
        _ => AskError::Nonsense("an answer out of place".to_owned()),
    }
}

/// Asks for a model's headers and checks them against its fingerprint, so that it does not matter
/// whom one asks.
///
/// # Errors
/// [`AskError`].
pub async fn ask_headers<D: Dial>(
    dial: &D,
    model: Fingerprint,
) -> Result<(Headers, Model), AskError> {
    let asked = Asked::ask(dial, &Ask::Headers(model)).await?;
    let headers = Headers::from_bytes(&asked.body(HEADERS_BYTES_MAX).await?)?;
    let read = headers.model(model)?;
    Ok((headers, read))
}

/// Asks which tensors of a job's model a member has, in the order of names.
///
/// # Errors
/// [`AskError`].
pub async fn ask_holdings<D: Dial>(dial: &D, job: &SliceJob) -> Result<Vec<bool>, AskError> {
    let asked = Asked::ask(dial, &Ask::Holdings(job.key().model)).await?;
    let bits = asked.body(HOLDINGS_BYTES_MAX).await?;
    if bits.len() != job.tensors().div_ceil(8) {
        return Err(AskError::Nonsense("holdings of another length".to_owned()));
    }
    let bit = |i: usize| bits[i / 8] >> (i % 8) & 1 == 1;
    Ok((0..job.tensors()).map(bit).collect())
}

/// Asks where a hub has the model's files; `None` if that is not known.
///
/// # Errors
/// [`AskError`]; an older member answers nothing at all.
pub async fn ask_place<D: Dial>(
    dial: &D,
    model: Fingerprint,
) -> Result<Option<HubPlace>, AskError> {
    let asked = Asked::ask(dial, &Ask::Place(model)).await?;
    let body = asked.body(PLACE_BYTES_MAX).await?;
    if body.is_empty() {
        return Ok(None);
    }
    let place = HubPlace::from_bytes(&body);
    let nonsense = || AskError::Nonsense("a place that no hub has".to_owned());
    place.map(Some).ok_or_else(nonsense)
}

/// Asks the host for the hashes of a slice. Ask nobody else: what it says is believed.
///
/// # Errors
/// [`AskError`].
pub async fn ask_manifest<D: Dial>(host: &D, job: &SliceJob) -> Result<Manifest, AskError> {
    let asked = Asked::ask(host, &Ask::Manifest(job.key().clone())).await?;
    let bytes = asked.body(Manifest::bytes_len(job) as u64).await?;
    Ok(Manifest::from_bytes(&bytes, job)?)
}

/// A member that has tensors of a model.
#[derive(Debug)]
pub struct PeerSource<D> {
    name: String,
    dial: Arc<D>,
    model: Fingerprint,
    tensors: Vec<bool>,
}

impl<D: Dial> PeerSource<D> {
    /// A member, once [`ask_holdings`] has told what it has. `name` is for people.
    #[must_use]
    pub fn new(name: String, dial: Arc<D>, model: Fingerprint, tensors: Vec<bool>) -> Self {
        Self {
            name,
            dial,
            model,
            tensors,
        }
    }

    async fn run(&self, chunks: &[Chunk], sink: &Sink) -> Result<(), AskError> {
        let ids = chunks.iter().map(|c| c.id).collect();
        let mut asked = Asked::ask(self.dial.as_ref(), &Ask::Chunks(self.model, ids)).await?;
        for (place, chunk) in chunks.iter().enumerate() {
            match asked.answer(FRAME_TIME_MAX).await? {
                Answer::Data(bytes) if bytes.len() == chunk.len() as usize => {
                    sink.chunk(place, bytes).await;
                }
                Answer::Refused(Refusal::Unknown | Refusal::Failed) => sink.missing(place).await,
                answer => return Err(unexpected(answer)),
            }
        }
        Ok(())
    }
}

impl<D: Dial> Source for PeerSource<D> {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn tier(&self) -> Tier {
        Tier::Peer
    }

    fn has(&self, tensor: u32) -> bool {
        self.tensors.get(tensor as usize) == Some(&true)
    }

    fn fetch<'a>(&'a self, chunks: &'a [Chunk], sink: &'a Sink) -> Fetching<'a> {
        Box::pin(async move { self.run(chunks, sink).await.map_err(AskError::into_fault) })
    }
}
