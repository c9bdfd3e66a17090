//! From OpenAI's answers and chunks to events.

use serde_json::Value;

use super::{failure, logprob};
use crate::{Embeddings, Error, Event, FinishReason, ToolCallDelta, Usage};

/// Reads the choices of one request, chunk by chunk or whole. Events come with their choice's
/// index.
#[derive(Debug)]
pub(crate) struct Reader {
    choices: Vec<Choice>,
    usage: Usage,
}

/// What is known of one choice.
#[derive(Debug, Default, Clone)]
struct Choice {
    is_finished: bool,
    /// Identifiers of the calls seen, for servers that leave the index out.
    calls: Vec<String>,
}

impl Reader {
    /// A reader of `n` choices.
    pub(crate) fn new(n: u32) -> Self {
        Self {
            choices: vec![Choice::default(); n as usize],
            usage: Usage::default(),
        }
    }

    /// Reads the data of one event.
    pub(crate) fn read_chunk(&mut self, data: &str) -> Result<Vec<(u32, Event)>, Error> {
        let chunk: Value = serde_json::from_str(data)
            .map_err(|error| Error::Protocol(format!("a chunk is no JSON: {error}")))?;
        self.read(&chunk, "delta")
    }

    /// Reads an answer that came as a whole.
    pub(crate) fn read_whole(&mut self, body: &Value) -> Result<Vec<(u32, Event)>, Error> {
        let mut events = self.read(body, "message")?;
        events.extend(self.end()?);
        Ok(events)
    }

    /// What follows when the server has said everything.
    pub(crate) fn end(&mut self) -> Result<Vec<(u32, Event)>, Error> {
        if self.choices.iter().all(|choice| choice.is_finished) {
            Ok(vec![(0, Event::Usage(self.usage))])
        } else {
            Err(Error::BrokenOff("the server closed the stream".to_owned()))
        }
    }

    fn read(&mut self, chunk: &Value, delta_key: &str) -> Result<Vec<(u32, Event)>, Error> {
        if let Some(error) = chunk.get("error").filter(|error| !error.is_null()) {
            return Err(failure::in_stream(error));
        }
        if let Some(usage) = chunk.get("usage").filter(|usage| usage.is_object()) {
            self.usage = read_usage(usage, &chunk["timings"]);
        }
        let mut events = Vec::new();
        for (place, value) in chunk["choices"]
            .as_array()
            .into_iter()
            .flatten()
            .enumerate()
        {
            let index = value["index"].as_u64().unwrap_or(place as u64);
            let choice = usize::try_from(index)
                .ok()
                .and_then(|index| self.choices.get_mut(index))
                .ok_or_else(|| Error::Protocol(format!("choice number {index}")))?;
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            let news = choice.read(value, delta_key);
            events.extend(news.into_iter().map(|event| (index, event)));
        }
        Ok(events)
    }
}

impl Choice {
    fn read(&mut self, choice: &Value, delta_key: &str) -> Vec<Event> {
        let mut events = Vec::new();
        let delta = &choice[delta_key];
        let mut add = |value: &Value, event: fn(String) -> Event| {
            if let Some(text) = value.as_str().filter(|text| !text.is_empty()) {
                events.push(event(text.to_owned()));
            }
        };
        let reasoning = &delta["reasoning_content"];
        let reasoning = if reasoning.is_null() {
            &delta["reasoning"]
        } else {
            reasoning
        };
        add(reasoning, Event::Reasoning);
        add(&delta["content"], Event::Content);
        // Plain completions carry their text beside, not in, the delta.
        add(&choice["text"], Event::Content);
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            events.push(Event::ToolCall(self.tool_call(call)));
        }
        let logprobs = logprob::read(&choice["logprobs"]);
        if !logprobs.is_empty() {
            events.push(Event::Logprobs(logprobs));
        }
        if let Some(reason) = choice["finish_reason"].as_str()
            && !self.is_finished
        {
            self.is_finished = true;
            events.push(Event::Finished(match reason {
                "length" => FinishReason::Length,
                "tool_calls" | "function_call" => FinishReason::ToolCalls,
                _ => FinishReason::Stop,
            }));
        }
        events
    }

    fn tool_call(&mut self, call: &Value) -> ToolCallDelta {
        let text = |value: &Value| {
            let text = value.as_str().filter(|text| !text.is_empty());
            text.map(str::to_owned)
        };
        let id = text(&call["id"]);
        let index = match call["index"].as_u64() {
            Some(index) => u32::try_from(index).unwrap_or(u32::MAX),
            None => self.index_of(id.as_deref()),
        };
        let arguments = match &call["function"]["arguments"] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            // Some servers send the arguments as an object instead of its text.
            other => other.to_string(),
        };
        ToolCallDelta {
            index,
            id,
            name: text(&call["function"]["name"]),
            arguments,
        }
    }

    fn index_of(&mut self, id: Option<&str>) -> u32 {
        let known = match id {
            Some(id) => self.calls.iter().position(|known| known == id),
            None => self.calls.len().checked_sub(1),
        };
        let index = known.unwrap_or_else(|| {
            self.calls.push(id.unwrap_or_default().to_owned());
            self.calls.len() - 1
        });
        u32::try_from(index).unwrap_or(u32::MAX)
    }
}

/// Reads the answer to a request with `count` texts.
pub(crate) fn embeddings(body: &Value, count: usize) -> Result<Embeddings, Error> {
    let entries = body["data"]
        .as_array()
        .filter(|entries| entries.len() == count)
        .ok_or_else(|| Error::Protocol(format!("expected {count} embeddings")))?;
    let mut vectors = vec![Vec::new(); count];
    for (place, entry) in entries.iter().enumerate() {
        let index = entry["index"]
            .as_u64()
            .map_or(Some(place), |index| usize::try_from(index).ok());
        let vector = index
            .and_then(|index| vectors.get_mut(index))
            .ok_or_else(|| Error::Protocol("an embedding has a wrong index".to_owned()))?;
        let numbers = entry["embedding"].as_array().into_iter().flatten();
        #[expect(
            clippy::cast_possible_truncation,
            reason = "embeddings are f32 everywhere"
        )]
        vector.extend(
            numbers
                .filter_map(Value::as_f64)
                .map(|number| number as f32),
        );
    }
    if vectors.iter().any(Vec::is_empty) {
        return Err(Error::Protocol("an embedding has no numbers".to_owned()));
    }
    Ok(Embeddings {
        vectors,
        prompt_tokens: count_of(&body["usage"]["prompt_tokens"]),
    })
}

fn read_usage(usage: &Value, timings: &Value) -> Usage {
    let completion = &usage["completion_tokens_details"];
    Usage {
        prompt_tokens: count_of(&usage["prompt_tokens"]),
        cached_tokens: count_of(&usage["prompt_tokens_details"]["cached_tokens"]),
        completion_tokens: count_of(&usage["completion_tokens"]),
        reasoning_tokens: count_of(&completion["reasoning_tokens"]),
        // llama.cpp's names, which mesh-llm has too.
        drafted_tokens: count_of(&timings["draft_n"]),
        accepted_tokens: count_of(&timings["draft_n_accepted"]),
    }
}

fn count_of(value: &Value) -> u32 {
    value
        .as_u64()
        .map_or(0, |count| u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Reader, embeddings};
    use crate::{Error, Event, FinishReason, ToolCallDelta, Usage};

    fn read(chunks: &[Value]) -> Result<Vec<Event>, Error> {
        let events = read_choices(1, chunks)?;
        Ok(events.into_iter().map(|(_, event)| event).collect())
    }

    fn read_choices(n: u32, chunks: &[Value]) -> Result<Vec<(u32, Event)>, Error> {
        let mut reader = Reader::new(n);
        let mut events = Vec::new();
        for chunk in chunks {
            events.extend(reader.read_chunk(&chunk.to_string())?);
        }
        events.extend(reader.end()?);
        Ok(events)
    }

    fn delta(delta: Value) -> Value {
        json!({ "choices": [{ "index": 0, "delta": delta, "finish_reason": null }] })
    }

    fn finish(reason: &str) -> Value {
        json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": reason }] })
    }

    #[test]
    fn chunks_become_events() {
        let events = read(&[
            delta(json!({ "role": "assistant", "content": "" })),
            delta(json!({ "reasoning_content": "hm" })),
            delta(json!({ "reasoning": "hm" })),
            delta(json!({ "content": "a", "reasoning_content": null })),
            finish("length"),
            json!({ "choices": [], "usage": {
                "prompt_tokens": 5, "completion_tokens": 2,
                "prompt_tokens_details": { "cached_tokens": 4 },
            }}),
        ]);
        let usage = Usage {
            prompt_tokens: 5,
            cached_tokens: 4,
            completion_tokens: 2,
            ..Usage::default()
        };
        let expected = [
            Event::Reasoning("hm".into()),
            Event::Reasoning("hm".into()),
            Event::Content("a".into()),
            Event::Finished(FinishReason::Length),
            Event::Usage(usage),
        ];
        assert_eq!(events.unwrap(), expected);
    }

    #[test]
    fn tool_calls_without_index_are_told_apart() {
        let call = |id: Option<&str>, arguments: Value| {
            delta(json!({ "tool_calls": [{ "id": id, "function": {
                "name": id.map(|_| "f"), "arguments": arguments,
            }}]}))
        };
        let events = read(&[
            call(Some("a"), json!("{")),
            call(None, json!("}")),
            call(Some("b"), json!({ "x": 1 })),
            finish("tool_calls"),
        ])
        .unwrap();
        let piece = |index, id: Option<&str>, arguments: &str| {
            Event::ToolCall(ToolCallDelta {
                index,
                id: id.map(String::from),
                name: id.map(|_| "f".to_owned()),
                arguments: arguments.to_owned(),
            })
        };
        let expected = [
            piece(0, Some("a"), "{"),
            piece(0, None, "}"),
            piece(1, Some("b"), r#"{"x":1}"#),
            Event::Finished(FinishReason::ToolCalls),
            Event::Usage(Usage::default()),
        ];
        assert_eq!(events, expected);
    }

    #[test]
    fn failures_are_errors_and_not_text() {
        let cut = read(&[delta(json!({ "content": "a" }))]);
        assert!(matches!(cut, Err(Error::BrokenOff(_))));
        let error = json!({ "error": { "message": "m", "code": "shutting_down" } });
        assert_eq!(read(&[error]), Err(Error::ShuttingDown));
        assert!(matches!(
            Reader::new(1).read_chunk("<html>"),
            Err(Error::Protocol(_))
        ));
    }

    #[test]
    fn a_whole_answer_has_the_same_events() {
        let body = json!({
            "choices": [{ "message": { "content": "hi" }, "finish_reason": "stop" }],
            "usage": { "prompt_tokens": 1, "completion_tokens": 1 },
        });
        let events = Reader::new(1).read_whole(&body).unwrap();
        assert_eq!(events[0], (0, Event::Content("hi".into())));
        assert_eq!(events[1], (0, Event::Finished(FinishReason::Stop)));
        assert!(matches!(events[2], (_, Event::Usage(usage)) if usage.prompt_tokens == 1));
    }

    #[test]
    fn choices_are_told_apart() {
        let chunk = |index: u64, text: &str, reason: Option<&str>| json!({ "choices": [{ "index": index, "text": text, "finish_reason": reason }] });
        let both = [chunk(1, "b", Some("stop")), chunk(0, "a", Some("length"))];
        let expected = [
            (1, Event::Content("b".into())),
            (1, Event::Finished(FinishReason::Stop)),
            (0, Event::Content("a".into())),
            (0, Event::Finished(FinishReason::Length)),
            (0, Event::Usage(Usage::default())),
        ];
        assert_eq!(read_choices(2, &both).unwrap(), expected);
        let one = read_choices(2, &both[..1]);
        assert!(matches!(one, Err(Error::BrokenOff(_))), "{one:?}");
        for index in [2, u64::MAX] {
            let stray = read_choices(2, &[chunk(index, "c", None)]);
            assert!(matches!(stray, Err(Error::Protocol(_))), "{stray:?}");
        }
    }

    #[test]
    fn embeddings_are_ordered_and_checked() {
        let body = json!({
            "data": [
                { "index": 1, "embedding": [0.0, 1.0] },
                { "index": 0, "embedding": [1.0, 0.0] },
            ],
            "usage": { "prompt_tokens": 7 },
        });
        let found = embeddings(&body, 2).unwrap();
        assert_eq!(found.vectors, [[1.0, 0.0], [0.0, 1.0]]);
        assert_eq!(found.prompt_tokens, 7);
        for bad in [
            json!({}),
            json!({ "data": [{ "index": 5, "embedding": [1.0] }, { "index": 0, "embedding": [1.0] }] }),
            json!({ "data": [{ "embedding": [] }, { "embedding": ["x"] }] }),
        ] {
            assert!(
                matches!(embeddings(&bad, 2), Err(Error::Protocol(_))),
                "{bad}"
            );
        }
    }
}
