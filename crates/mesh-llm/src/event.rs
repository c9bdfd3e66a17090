//! An answer, piece by piece or whole.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures::{Stream, StreamExt};

use crate::{Error, FinishReason, ToolCall, ToolCallDelta, Usage};

/// Tool calls that one answer may hold. Models call a handful; the bound keeps a hostile server
/// from growing [`Reply::tool_calls`] with one huge index.
const TOOL_CALLS_MAX: u32 = 256;

/// Most choices of one request: OpenAI's limit.
pub(crate) const CHOICES_MAX: u32 = 128;
/// Most alternatives per token that can be reported: OpenAI's limit.
pub(crate) const TOP_LOGPROBS_MAX: u32 = 20;
/// Stands for minus infinity, as in OpenAI's API.
pub(crate) const LOGPROB_MIN: f32 = -9999.0;

/// One step of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// More text.
    Content(String),
    /// More of the model's reasoning, which is not part of the text.
    Reasoning(String),
    /// A piece of a tool call.
    ToolCall(ToolCallDelta),
    /// Log-probabilities of the next tokens, if asked for with
    /// [`Generation::logprobs`](crate::Generation::logprobs).
    Logprobs(Vec<TokenLogprob>),
    /// The answer is complete. Only [`Event::Usage`] follows.
    Finished(FinishReason),
    /// Token counts; always the last event. Zeros if the server does not count.
    Usage(Usage),
}

/// Log-probability of a token that was drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    /// The token's text; may be part of a character.
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability; -9999 stands for minus infinity.
    pub logprob: f32,
    /// The likeliest tokens at this place, likeliest first, with their log-probabilities.
    pub top: Vec<(Vec<u8>, f32)>,
}

/// An answer as it comes, a [`Stream`] of [`Event`]s. An error is its last item.
///
/// Dropping it cancels the generation.
pub struct Events {
    inner: Pin<Box<dyn Stream<Item = Result<Event, Error>> + Send>>,
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The text.
    pub content: String,
    /// The model's reasoning, if it reasons.
    pub reasoning: String,
    /// Tools it wants called.
    pub tool_calls: Vec<ToolCall>,
    /// Log-probabilities of its tokens; empty unless asked for.
    pub logprobs: Vec<TokenLogprob>,
    /// Why it ended.
    pub finish: FinishReason,
    /// Token counts; of a request for several answers, those of all together.
    pub usage: Usage,
}

/// Events of all choices of a request, each with the index of its choice. The last one,
/// [`Event::Usage`], belongs to all.
pub(crate) type ChoiceEvents = Pin<Box<dyn Stream<Item = Result<(u32, Event), Error>> + Send>>;

/// A reply that grows.
struct Draft {
    reply: Reply,
    is_finished: bool,
}

impl Draft {
    fn new() -> Self {
        Self {
            reply: Reply {
                content: String::new(),
                reasoning: String::new(),
                tool_calls: Vec::new(),
                logprobs: Vec::new(),
                finish: FinishReason::Stop,
                usage: Usage::default(),
            },
            is_finished: false,
        }
    }

    fn take(&mut self, event: Event) -> Result<(), Error> {
        let reply = &mut self.reply;
        match event {
            Event::Content(text) => reply.content.push_str(&text),
            Event::Reasoning(text) => reply.reasoning.push_str(&text),
            Event::ToolCall(delta) => add_tool_call(&mut reply.tool_calls, delta)?,
            Event::Logprobs(tokens) => reply.logprobs.extend(tokens),
            Event::Finished(reason) => {
                reply.finish = reason;
                self.is_finished = true;
            }
            Event::Usage(usage) => reply.usage = usage,
        }
        Ok(())
    }

    fn end(self) -> Result<Reply, Error> {
        if self.is_finished {
            Ok(self.reply)
        } else {
            Err(Error::BrokenOff("it has no end".to_owned()))
        }
    }
}

/// Waits for the replies of all `n` choices.
pub(crate) async fn replies(mut events: ChoiceEvents, n: u32) -> Result<Vec<Reply>, Error> {
    let mut drafts: Vec<Draft> = (0..n).map(|_| Draft::new()).collect();
    while let Some(event) = events.next().await {
        match event? {
            (_, Event::Usage(usage)) => {
                drafts
                    .iter_mut()
                    .for_each(|draft| draft.reply.usage = usage);
            }
            (choice, event) => {
                let draft = drafts.get_mut(choice as usize);
                draft
                    .ok_or_else(|| Error::Protocol(format!("choice number {choice}")))?
                    .take(event)?;
            }
        }
    }
    drafts.into_iter().map(Draft::end).collect()
}

impl Events {
    pub(crate) fn new(events: impl Stream<Item = Result<Event, Error>> + Send + 'static) -> Self {
        Self {
            inner: Box::pin(events),
        }
    }

    /// The events of the only choice.
    pub(crate) fn of_one(events: ChoiceEvents) -> Self {
        Self::new(events.map(|event| event.map(|(_, event)| event)))
    }

    /// The next event; `None` after the last.
    pub async fn next(&mut self) -> Option<Result<Event, Error>> {
        self.inner.next().await
    }

    /// Waits for the whole answer.
    ///
    /// # Errors
    /// The error that ended the stream; [`Error::BrokenOff`] if it ended too early.
    pub async fn reply(mut self) -> Result<Reply, Error> {
        let mut draft = Draft::new();
        while let Some(event) = self.next().await {
            draft.take(event?)?;
        }
        draft.end()
    }

    /// Waits for the whole answer and returns its text alone.
    ///
    /// # Errors
    /// As [`Events::reply`].
    pub async fn text(self) -> Result<String, Error> {
        Ok(self.reply().await?.content)
    }
}

impl Stream for Events {
    type Item = Result<Event, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.inner.as_mut().poll_next(context)
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Events").finish_non_exhaustive()
    }
}

fn add_tool_call(calls: &mut Vec<ToolCall>, delta: ToolCallDelta) -> Result<(), Error> {
    if delta.index >= TOOL_CALLS_MAX {
        return Err(Error::Protocol(format!("tool call number {}", delta.index)));
    }
    let index = delta.index as usize;
    while calls.len() <= index {
        calls.push(ToolCall {
            id: String::new(),
            name: String::new(),
            arguments: String::new(),
        });
    }
    let call = &mut calls[index];
    if let Some(id) = delta.id {
        call.id = id;
    }
    if let Some(name) = delta.name {
        call.name = name;
    }
    call.arguments.push_str(&delta.arguments);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Event, Events, TOOL_CALLS_MAX};
    use crate::{Error, FinishReason, ToolCallDelta, Usage};

    fn piece(index: u32, id: Option<&str>, arguments: &str) -> Event {
        Event::ToolCall(ToolCallDelta {
            index,
            id: id.map(String::from),
            name: id.map(|id| format!("f-{id}")),
            arguments: arguments.to_owned(),
        })
    }

    async fn reply(events: Vec<Result<Event, Error>>) -> Result<super::Reply, Error> {
        Events::new(futures::stream::iter(events)).reply().await
    }

    #[tokio::test]
    async fn pieces_become_a_reply() {
        let usage = Usage {
            prompt_tokens: 3,
            ..Usage::default()
        };
        let reply = reply(vec![
            Ok(Event::Reasoning("hm".into())),
            Ok(Event::Content("a".into())),
            Ok(Event::Content("b".into())),
            Ok(piece(0, Some("x"), "{")),
            Ok(piece(1, Some("y"), "{}")),
            Ok(piece(0, None, "}")),
            Ok(Event::Finished(FinishReason::ToolCalls)),
            Ok(Event::Usage(usage)),
        ])
        .await
        .unwrap();
        assert_eq!(
            (reply.reasoning.as_str(), reply.content.as_str()),
            ("hm", "ab")
        );
        assert_eq!(reply.tool_calls.len(), 2);
        assert_eq!(reply.tool_calls[0].name, "f-x");
        assert_eq!(reply.tool_calls[0].arguments, "{}");
        assert_eq!(
            (reply.finish, reply.usage),
            (FinishReason::ToolCalls, usage)
        );
    }

    #[tokio::test]
    async fn errors_end_a_reply() {
        let error = reply(vec![
            Ok(Event::Content("a".into())),
            Err(Error::ShuttingDown),
        ])
        .await;
        assert_eq!(error, Err(Error::ShuttingDown));
        let error = reply(vec![Ok(Event::Content("a".into()))]).await;
        assert!(matches!(error, Err(Error::BrokenOff(_))));
        let error = reply(vec![Ok(piece(TOOL_CALLS_MAX, None, ""))]).await;
        assert!(matches!(error, Err(Error::Protocol(_))));
    }
}
