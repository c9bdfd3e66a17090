"""Talks to a server with OpenAI's Python SDK, as a user's program would.

usage: sdk.py BASE_URL API_KEY MODEL EMBEDDING_MODEL

Checks shapes and promises, not wits: it passes with any model. Exits non-zero at the first
broken promise.
"""

import asyncio
import json
import math
import sys

import openai
from pydantic import BaseModel, Field

base_url, api_key, model, embedding_model = sys.argv[1:5]
client = openai.OpenAI(base_url=base_url, api_key=api_key, max_retries=0, timeout=120)
messages = [{"role": "user", "content": "How is the weather in Ulm?"}]
tools = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "tells the weather of a city",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "maxLength": 20}},
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    }
]


class City(BaseModel):
    name: str = Field(max_length=20)
    known: bool


def models():
    listed = [entry.id for entry in client.models.list()]
    assert model in listed, listed
    assert client.models.retrieve(model).object == "model"


def whole():
    raw = client.chat.completions.with_raw_response.create(
        model=model, messages=messages, max_tokens=24, n=2, seed=7, logprobs=True, top_logprobs=2
    )
    answer = raw.parse()
    assert answer._request_id or raw.headers["x-request-id"]
    assert answer.object == "chat.completion" and answer.id.startswith("chatcmpl-")
    assert [choice.index for choice in answer.choices] == [0, 1]
    for choice in answer.choices:
        assert choice.message.role == "assistant"
        assert choice.finish_reason in ("stop", "length"), choice
        for token in choice.logprobs.content:
            assert token.logprob <= 0 and len(token.top_logprobs) <= 2
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.prompt_tokens_details.cached_tokens >= 0
    assert usage.completion_tokens_details.reasoning_tokens >= 0
    assert answer.timings["predicted_n"] == usage.completion_tokens


def streamed():
    stream = client.chat.completions.create(
        model=model,
        messages=messages,
        max_tokens=24,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens > 0
    assert all(chunk.usage is None for chunk in chunks[:-1])
    reasons = [c.choices[0].finish_reason for c in chunks if c.choices]
    assert reasons[-1] in ("stop", "length") and not any(reasons[:-1]), reasons
    # The SDK's own accumulator must agree with the shapes, too.
    with client.chat.completions.stream(model=model, messages=messages, max_tokens=24) as events:
        assert "chunk" in [event.type for event in events]
        try:
            final = events.get_final_completion()
            assert final.choices[0].finish_reason == "stop", final
        except openai.LengthFinishReasonError:
            pass


def left_early():
    stream = client.chat.completions.create(
        model=model, messages=messages, stream=True, max_tokens=200
    )
    next(iter(stream))
    stream.close()


def called():
    answer = client.chat.completions.create(
        model=model, messages=messages, tools=tools, tool_choice="required", max_tokens=128
    )
    message = answer.choices[0].message
    call = message.tool_calls[0]
    assert answer.choices[0].finish_reason == "tool_calls", answer
    assert call.type == "function" and call.function.name == "weather"
    assert isinstance(json.loads(call.function.arguments)["city"], str)
    # The call and its result go back as the SDK has them.
    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    client.chat.completions.create(
        model=model,
        messages=[*messages, message, result],
        tools=tools,
        tool_choice="none",
        max_tokens=16,
    )
    choice = {"type": "function", "function": {"name": "weather"}}
    with client.chat.completions.stream(
        model=model, messages=messages, tools=tools, tool_choice=choice, max_tokens=128
    ) as events:
        arguments = "".join(
            event.arguments_delta
            for event in events
            if event.type == "tool_calls.function.arguments.delta"
        )
        final = events.get_final_completion().choices[0]
    assert json.loads(arguments) == json.loads(final.message.tool_calls[0].function.arguments)
    assert final.finish_reason in ("tool_calls", "stop"), final


def structured():
    answer = client.chat.completions.parse(
        model=model, messages=messages, response_format=City, max_tokens=400
    )
    choice = answer.choices[0]
    assert isinstance(choice.message.parsed, City), choice
    answer = client.chat.completions.create(
        model=model, messages=messages, response_format={"type": "json_object"}, max_tokens=200
    )
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(answer.choices[0].message.content), dict)


def completed():
    answer = client.completions.create(
        model=model, prompt=["One, two", "Red, green"], max_tokens=8, echo=True
    )
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.choices[1].text.startswith("Red, green")
    answer = client.completions.create(model=model, prompt="One,", max_tokens=4, logprobs=1)
    lists = answer.choices[0].logprobs
    assert len(lists.tokens) == len(lists.token_logprobs) == len(lists.text_offset)
    chunks = list(client.completions.create(model=model, prompt="One,", max_tokens=4, stream=True))
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")


def embedded():
    # The SDK asks for base64 and decodes it.
    answer = client.embeddings.create(model=embedding_model, input=["a cat", "a dog"])
    assert [entry.index for entry in answer.data] == [0, 1]
    plain = client.embeddings.create(
        model=embedding_model, input="a cat", encoding_format="float"
    )
    # How texts share a batch may change the last bits.
    for one, other in zip(answer.data[0].embedding, plain.data[0].embedding, strict=True):
        assert math.isclose(one, other, abs_tol=1e-3), (one, other)
    short = client.embeddings.create(model=embedding_model, input="a cat", dimensions=2)
    length = math.hypot(*short.data[0].embedding)
    assert len(short.data[0].embedding) == 2 and math.isclose(length, 1, abs_tol=1e-3)
    assert answer.usage.prompt_tokens > 0


def expect(kind, status, code, param, **request):
    try:
        client.chat.completions.create(**request)
    except kind as error:
        assert error.status_code == status and error.code == code, error
        assert error.param == param, error
    else:
        raise AssertionError(f"no {kind.__name__}")


def refused():
    expect(
        openai.NotFoundError, 404, "model_not_found", "model", model="gpt-9", messages=messages
    )
    expect(
        openai.BadRequestError,
        400,
        "invalid_value",
        "temperature",
        model=model,
        messages=messages,
        temperature=9,
    )
    long = [{"role": "user", "content": "word " * 100_000}]
    expect(
        openai.BadRequestError,
        400,
        "context_length_exceeded",
        None,
        model=model,
        messages=long,
    )
    stranger = client.with_options(api_key="wrong")
    try:
        stranger.models.list()
    except openai.AuthenticationError as error:
        assert error.code == "invalid_api_key", error
    else:
        raise AssertionError("a wrong key was taken")


async def together():
    patient = openai.AsyncOpenAI(base_url=base_url, api_key=api_key, max_retries=0, timeout=120)

    async def one(number):
        stream = await patient.chat.completions.create(
            model=model, messages=messages, max_tokens=8, seed=number, stream=True
        )
        return [chunk async for chunk in stream]

    for chunks in await asyncio.gather(*(one(number) for number in range(8))):
        assert chunks[-1].choices[0].finish_reason in ("stop", "length")


for check in (
    models,
    whole,
    streamed,
    left_early,
    called,
    structured,
    completed,
    embedded,
    refused,
):
    check()
    print("ok", check.__name__)
asyncio.run(together())
print("ok together")
