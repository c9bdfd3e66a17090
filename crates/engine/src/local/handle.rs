//! The handle of a loaded model: checks requests, prepares them, and hands them over. What it offers as a
//! backend is in `backend`.

mod backend;

use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use llama::Model;
use tokio::sync::mpsc;

use super::choice::{Choice, Piece, Progress, Submission, Verdict};
use super::decode::{Command, DecodeLoop, PIECES_PER_STEP};
use super::embedder::Embedder;
use super::forward::Forward;
use super::generation;
use super::generation::Replayed;
use super::launch::{self, Evaluator};
use super::load::{Header, LoadOptions, Room, load_weights};
use super::sampler::{self, TokenSampler};
use super::shared::Shared;
use super::tokens::{chat_format, chat_tokens, end_tokens, shown_tokens, token_texts};
use crate::assembler::Assembler;
use crate::scheduler::Scheduler;
use crate::stage::{EmbeddingTable, Stages};
use crate::text::{ChatFormat, OutputParser, Prepared};
use crate::{Chat, Error, EventStream, Input, ModelInfo, Request, TokenId};

/// Pieces that wait for a slow consumer, per choice, before its job pauses: some seconds of text.
const PIECES_PER_CHOICE: usize = 256;
/// Most choices of one request.
const CHOICES_MAX: u32 = 128;
/// Texts from this length on are prepared on a blocking thread, bytes: a millisecond's work.
const BLOCKING_TEXT_BYTES: usize = 8 << 10;
/// Longest `Retry-After`, s.
const RETRY_AFTER_S_MAX: u32 = 60;

/// A model that is loaded in this process. Cheap to clone; the model goes with the last clone and
/// the last stream.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    info: Arc<ModelInfo>,
    model: Model,
    format: ChatFormat,
    /// Per token: whether its text belongs to a chat answer, and to plain text.
    shown: [Arc<[bool]>; 2],
    /// Bytes of the longest token.
    token_bytes_max: usize,
    room: Room,
    commands: SyncSender<Command>,
    shared: Arc<Shared>,
    embedder: Option<Embedder>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

/// A request that is ready for its turn.
struct Ready {
    prompt: Vec<TokenId>,
    parser: OutputParser,
    /// Those that go on.
    choices: Vec<Choice>,
    replayed: Replayed,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("model", &self.inner.info.name)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Loads a model. Blocks until it is ready; `on_progress` gets the share done, 0 to 1.
    ///
    /// # Errors
    /// [`Error::Load`] if the file is damaged, of a kind that is not served, or memory is short;
    /// [`Error::InvalidRequest`] for options that can't be.
    pub fn load(
        options: LoadOptions,
        mut on_progress: impl FnMut(f32) + Send + 'static,
    ) -> Result<Self, Error> {
        if let Err(warning) = super::native_kernels() {
            tracing::warn!("{warning}");
        }
        let header = Header::read(&options)?;
        let model = load_weights(&options.source, &header.gguf, &options, &mut on_progress)?;
        let context = header.room.context(&model, header.purpose)?;
        let evaluator = if header.purpose.embeds() {
            Evaluator::Embeds(context)
        } else {
            Evaluator::Generates {
                forward: Box::new(context),
                drafter: launch::drafter(&options, &model, header.room)?,
                stores: launch::can_store(&model),
            }
        };
        Self::assemble(&header, model, evaluator)
    }

    /// Puts a model together whose last part, with the vocabulary, is at `options.source`, and whose
    /// other layers `stages` has, with room as [`stage_options`](super::stage_options) says. Blocks
    /// until it is ready.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_split(
        options: &LoadOptions,
        embedding: EmbeddingTable,
        stages: Box<dyn Stages>,
    ) -> Result<Self, Error> {
        let header = Header::read(options)?;
        let pipeline = launch::pipeline(options, &header, embedding, stages)?;
        let model = pipeline.model().clone();
        let evaluator = Evaluator::Generates {
            forward: Box::new(pipeline),
            drafter: launch::drafter(options, &model, header.room)?,
            // What other machines keep stays there.
            stores: false,
        };
        Self::assemble(&header, model, evaluator)
    }

    /// Starts what evaluates, and makes the handle to it.
    fn assemble(header: &Header, model: Model, evaluator: Evaluator) -> Result<Self, Error> {
        let room = header.room;
        let bytes = token_texts(&model);
        let token_bytes_max = bytes.iter().map(Vec::len).max().unwrap_or(1);
        let format = chat_format(&model, &header.gguf, bytes)?;
        let shown = shown_tokens(&model, &format);
        let info = Arc::new(launch::model_info(header, &model, &format));
        let shared = Arc::new(Shared::default());
        // One message per waiting request, and as many for those that are in slots.
        let (commands, receiver) = sync_channel((room.queue_max + room.slots) as usize + 8);
        let (embedder, thread) = match evaluator {
            Evaluator::Embeds(context) => {
                let (tokens_max, sequences) = (room.batch_tokens as usize, room.sequences as usize);
                let (name, shared) = (&info.name, shared.clone());
                let embedder = Embedder::start(context, tokens_max, sequences, name, shared)?;
                (Some(embedder), None)
            }
            Evaluator::Generates {
                forward,
                drafter,
                stores,
            } => {
                let decode = DecodeLoop::new(
                    forward,
                    Scheduler::new(launch::limits(room, &model, stores)),
                    drafter,
                    shared.clone(),
                    end_tokens(&model),
                    room.context_tokens as usize,
                );
                let thread = std::thread::Builder::new()
                    .name(format!("decode {}", info.name))
                    .spawn(move || decode.run(&receiver))
                    .map_err(|e| Error::Load(format!("no thread for the model: {e}")))?;
                (None, Some(thread))
            }
        };
        let inner = Inner {
            info,
            model,
            format,
            shown,
            token_bytes_max,
            room,
            commands,
            shared,
            embedder,
            thread: Mutex::new(thread),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Prepares and submits a request.
    async fn start(&self, request: Request) -> Result<EventStream, Error> {
        let inner = &self.inner;
        inner.check(&request)?;
        let submitted = Instant::now();
        let (n, reuse) = (request.n as usize, request.cache_prompt);
        let ready = if inner.is_heavy(&request) {
            let engine = self.clone();
            tokio::task::spawn_blocking(move || engine.inner.ready(&request))
                .await
                .map_err(|e| Error::Inference(format!("preparing the request failed: {e}")))??
        } else {
            inner.ready(&request)?
        };
        let Ready {
            prompt,
            parser,
            choices,
            replayed,
        } = ready;
        let (pieces, receiver) = mpsc::channel(n * (PIECES_PER_CHOICE + PIECES_PER_STEP) + 2);
        let parsers = vec![parser; n];
        let events = generation::events(receiver, parsers, prompt.len() as u32, replayed);
        if choices.is_empty() {
            // Everything had ended before it was gone on with.
            return Ok(events);
        }
        let submission = Submission {
            prompt,
            choices,
            reuse,
            submitted,
            pieces,
        };
        inner.submit(submission)?;
        Ok(events)
    }
}

impl Inner {
    /// Refuses what can't be served, whatever the prompt.
    fn check(&self, request: &Request) -> Result<(), Error> {
        if self.shared.closed.load(Relaxed) {
            return Err(Error::ShuttingDown);
        }
        if self.embedder.is_some() {
            return Err(Error::Unsupported(format!(
                "`{}` is an embedding model; hint: use /v1/embeddings",
                self.info.name
            )));
        }
        if !(1..=CHOICES_MAX).contains(&request.n) {
            return Err(Error::invalid(
                "n",
                format!("must be between 1 and {CHOICES_MAX}"),
            ));
        }
        let known = |t: &TokenId| self.model.vocabulary().contains(*t);
        if let Some((token, _)) = request.sampling.logit_bias.iter().find(|(t, _)| !known(t)) {
            return Err(Error::invalid(
                "logit_bias",
                format!("{token} is no token of the model"),
            ));
        }
        if !request.resume.is_empty() {
            self.check_resume(request)?;
        }
        if let Input::Tokens(tokens) = &request.input
            && let Some(token) = tokens.iter().find(|t| !known(t))
        {
            return Err(Error::invalid(
                "prompt",
                format!("{token} is no token of the model"),
            ));
        }
        Ok(())
    }

    fn check_resume(&self, request: &Request) -> Result<(), Error> {
        if request.resume.len() != request.n as usize {
            return Err(Error::invalid("resume", "must have one entry per choice"));
        }
        let tokens = || request.resume.iter().flat_map(|resumed| &resumed.tokens);
        if let Some(token) = tokens().find(|t| !self.model.vocabulary().contains(**t)) {
            return Err(Error::invalid(
                "resume",
                format!("{token} is no token of the model"),
            ));
        }
        let longest = (request.resume.iter().map(|r| r.tokens.len())).max();
        if longest.unwrap_or(0) >= self.room.context_tokens as usize {
            return Err(Error::invalid("resume", "is longer than the context"));
        }
        Ok(())
    }

    /// Whether preparing takes long enough to disturb the caller's thread.
    fn is_heavy(&self, request: &Request) -> bool {
        let (text, tokens_max) = match &request.input {
            Input::Chat(chat) => (chat_bytes(chat), chat_bytes(chat)),
            Input::Text(text) => (text.len(), text.len()),
            Input::Tokens(tokens) => (0, tokens.len()),
        };
        // What the penalties of each choice are told of the prompt: about as much work as its text.
        let told = tokens_max.min(sampler::window(&request.sampling));
        let work = text.saturating_add(told.saturating_mul(request.n as usize));
        work >= BLOCKING_TEXT_BYTES
            || request.format != crate::Format::Text
            // Their schemas become a grammar.
            || matches!(&request.input, Input::Chat(chat) if !chat.tools.is_empty())
            // It looks for its breakers in the whole vocabulary.
            || request.sampling.dry_multiplier > 0.0
    }

    /// Everything about a request that needs no evaluation.
    fn ready(&self, request: &Request) -> Result<Ready, Error> {
        let (prompt, prepared) = self.prepare(request)?;
        let mut choices = self.choices(request, &prepared, &prompt)?;
        let replayed = self.replay(request, &mut choices, prompt.len())?;
        Ok(Ready {
            prompt,
            parser: prepared.parser,
            choices,
            replayed,
        })
    }

    /// Template, tokens, constraint, parser.
    fn prepare(&self, request: &Request) -> Result<(Vec<TokenId>, Prepared), Error> {
        let vocabulary = self.model.vocabulary();
        let text_error = |e: llama::Error| Error::invalid("prompt", e.to_string());
        let prepared = self.format.prepare(request)?;
        let prompt = match &request.input {
            Input::Chat(_) => {
                let text = prepared.prompt.as_deref().unwrap_or_default();
                self.refuse_huge(text)?;
                chat_tokens(vocabulary, &self.format, &prepared).map_err(text_error)?
            }
            Input::Text(text) => {
                self.refuse_huge(text)?;
                vocabulary.tokenize(text, true, true).map_err(text_error)?
            }
            Input::Tokens(tokens) => tokens.clone(),
        };
        let context_tokens = self.room.context_tokens;
        if prompt.len() >= context_tokens as usize {
            let prompt_tokens = prompt.len() as u32;
            return Err(Error::ContextLengthExceeded {
                prompt_tokens,
                context_tokens,
            });
        }
        if prompt.is_empty() {
            return Err(Error::invalid(
                "prompt",
                "is empty; hint: give at least one token",
            ));
        }
        Ok((prompt, prepared))
    }

    /// A text that is too long whatever its tokens are is not tokenised at all.
    fn refuse_huge(&self, text: &str) -> Result<(), Error> {
        let tokens_min = text.len() / self.token_bytes_max.max(1);
        if tokens_min < self.room.context_tokens as usize {
            return Ok(());
        }
        Err(Error::ContextLengthExceeded {
            prompt_tokens: u32::try_from(tokens_min).unwrap_or(u32::MAX),
            context_tokens: self.room.context_tokens,
        })
    }

    fn choices(
        &self,
        request: &Request,
        prepared: &Prepared,
        prompt: &[TokenId],
    ) -> Result<Vec<Choice>, Error> {
        let limits = &request.limits;
        let seed = request.sampling.seed.unwrap_or_else(rand::random);
        let stops: Vec<String> = limits.stop.iter().chain(&prepared.stops).cloned().collect();
        let room = self.room.context_tokens - prompt.len() as u32;
        let is_chat = matches!(request.input, Input::Chat(_));
        (0..request.n)
            .map(|index| {
                let sampler = TokenSampler::new(
                    self.model.vocabulary(),
                    &request.sampling,
                    seed.wrapping_add(index),
                    prepared.constraint.as_ref().map(|c| c.start()),
                    request.logprobs,
                    self.room.context_tokens,
                    prompt,
                )?;
                Ok(Choice {
                    index,
                    sampler,
                    assembler: Assembler::new(stops.clone()),
                    shown: self.shown[usize::from(!is_chat)].clone(),
                    max_tokens: limits.max_tokens.unwrap_or(u32::MAX).min(room).max(1),
                    min_tokens: limits.min_tokens,
                    ignore_eos: limits.ignore_eos,
                    speculate: request.speculate,
                    resumed: request
                        .resume
                        .get(index as usize)
                        .map_or_else(Vec::new, |r| r.tokens.clone()),
                    progress: Progress::default(),
                })
            })
            .collect()
    }

    /// Takes in what another engine drew before, and leaves the choices that go on.
    fn replay(
        &self,
        request: &Request,
        choices: &mut Vec<Choice>,
        prompt_tokens: usize,
    ) -> Result<Replayed, Error> {
        let mut replayed = Replayed::default();
        let mut open = Vec::with_capacity(choices.len());
        for (mut choice, resumed) in std::mem::take(choices).into_iter().zip(
            request
                .resume
                .iter()
                .map(Some)
                .chain(std::iter::repeat(None)),
        ) {
            if let Some(resumed) = resumed
                && resumed.finished
            {
                replayed.finished_choices += 1;
                replayed.finished_tokens += resumed.tokens.len() as u32;
                continue;
            }
            let context_tokens = self.room.context_tokens as usize;
            let (pieces, verdict) =
                choice.replay(self.model.vocabulary(), prompt_tokens, context_tokens)?;
            replayed.pieces.extend(pieces);
            match verdict {
                Verdict::Continue => open.push(choice),
                Verdict::End { reason, text } => replayed.pieces.push(Piece::Finished {
                    choice: choice.index,
                    text,
                    reason,
                    figures: choice.progress.figures,
                }),
            }
        }
        replayed.starts = !request.resume.is_empty() && open.is_empty();
        *choices = open;
        Ok(replayed)
    }

    fn submit(&self, submission: Submission) -> Result<(), Error> {
        let (shared, queue_max) = (&self.shared, self.room.queue_max);
        let free = |waiting: u32| (waiting < queue_max).then_some(waiting + 1);
        let full = |waiting| {
            // The queue moves by one request per slot in the time of one request.
            let ahead = u64::from(shared.request_ms.load(Relaxed)) * u64::from(waiting);
            let seconds = ahead / u64::from(self.room.slots) / 1000;
            let retry_after_s = (seconds as u32).clamp(1, RETRY_AFTER_S_MAX);
            Error::QueueFull {
                waiting,
                retry_after_s,
            }
        };
        shared
            .waiting
            .fetch_update(Relaxed, Relaxed, free)
            .map_err(full)?;
        self.commands
            .try_send(Command::Submit(Box::new(submission)))
            .map_err(|e| {
                shared.waiting.fetch_sub(1, Relaxed);
                match e {
                    TrySendError::Full(_) => full(queue_max),
                    TrySendError::Disconnected(_) if shared.closed.load(Relaxed) => {
                        Error::ShuttingDown
                    }
                    TrySendError::Disconnected(_) => Error::Inference(
                        "the model's thread has failed; hint: see the log, then restart".into(),
                    ),
                }
            })
    }
}

/// How much there is to read of a conversation, bytes; a tool comes with a schema.
fn chat_bytes(chat: &Chat) -> usize {
    let text = chat.messages.iter().map(|m| m.content.len()).sum::<usize>();
    text + chat.tools.len() * BLOCKING_TEXT_BYTES / 4
}
