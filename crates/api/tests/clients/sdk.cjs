// Talks to a server with OpenAI's JavaScript SDK, as a user's program would.
//
// usage: node sdk.cjs BASE_URL API_KEY MODEL EMBEDDING_MODEL
//
// Checks shapes and promises, not wits: it passes with any model.
"use strict";

const assert = require("node:assert/strict");
const { OpenAI } = require("openai");

const [baseURL, apiKey, model, embeddingModel] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 120_000 });
const messages = [{ role: "user", content: "How is the weather in Ulm?" }];
const ends = ["stop", "length"];
const tools = [
  {
    type: "function",
    function: {
      name: "weather",
      description: "tells the weather of a city",
      parameters: {
        type: "object",
        properties: { city: { type: "string", maxLength: 20 } },
        required: ["city"],
        additionalProperties: false,
      },
    },
  },
];

async function models() {
  const listed = [];
  for await (const entry of client.models.list()) listed.push(entry.id);
  assert(listed.includes(model), String(listed));
  assert.equal((await client.models.retrieve(model)).object, "model");
}

async function whole() {
  const { data, request_id } = await client.chat.completions
    .create({ model, messages, max_tokens: 24, n: 2, logprobs: true })
    .withResponse();
  assert(request_id);
  assert.deepEqual(data.choices.map((choice) => choice.index), [0, 1]);
  for (const choice of data.choices) assert(ends.includes(choice.finish_reason));
  assert.equal(data.usage.total_tokens, data.usage.prompt_tokens + data.usage.completion_tokens);
}

async function streamed() {
  const chunks = [];
  const stream = await client.chat.completions.create({
    model,
    messages,
    max_tokens: 24,
    stream: true,
    stream_options: { include_usage: true },
  });
  for await (const chunk of stream) chunks.push(chunk);
  assert.equal(chunks[0].choices[0].delta.role, "assistant");
  assert.equal(chunks.at(-1).choices.length, 0);
  assert(chunks.at(-1).usage.completion_tokens > 0);
  const runner = client.chat.completions.stream({ model, messages, max_tokens: 24 });
  assert.equal(typeof (await runner.finalContent()), "string");
}

async function leftEarly() {
  const stream = await client.chat.completions.create({
    model,
    messages,
    stream: true,
    max_tokens: 200,
  });
  for await (const chunk of stream) {
    assert(chunk.id);
    break;
  }
  stream.controller.abort();
}

async function called() {
  const answer = await client.chat.completions.create({
    model,
    messages,
    tools,
    tool_choice: "required",
    max_tokens: 128,
  });
  const call = answer.choices[0].message.tool_calls[0];
  assert.equal(answer.choices[0].finish_reason, "tool_calls");
  assert.equal(typeof JSON.parse(call.function.arguments).city, "string");
  const runner = client.chat.completions.stream({
    model,
    messages,
    tools,
    tool_choice: "required",
    max_tokens: 128,
  });
  const final = (await runner.finalChatCompletion()).choices[0].message.tool_calls[0];
  assert.equal(final.function.name, "weather");
  assert.equal(typeof JSON.parse(final.function.arguments).city, "string");
}

async function structured() {
  const answer = await client.chat.completions.create({
    model,
    messages,
    max_tokens: 128,
    response_format: {
      type: "json_schema",
      json_schema: {
        name: "city",
        strict: true,
        schema: {
          type: "object",
          properties: { name: { type: "string", maxLength: 20 }, known: { type: "boolean" } },
          required: ["name", "known"],
          additionalProperties: false,
        },
      },
    },
  });
  const city = JSON.parse(answer.choices[0].message.content);
  assert.equal(typeof city.name, "string");
  assert.equal(typeof city.known, "boolean");
}

async function completed() {
  const answer = await client.completions.create({ model, prompt: ["One,", "Red,"], max_tokens: 4 });
  assert.deepEqual(answer.choices.map((choice) => choice.index), [0, 1]);
  let last;
  const request = { model, prompt: "One,", max_tokens: 4, stream: true };
  for await (const chunk of await client.completions.create(request)) last = chunk;
  assert(ends.includes(last.choices[0].finish_reason));
}

async function embedded() {
  const answer = await client.embeddings.create({ model: embeddingModel, input: ["a cat", "a dog"] });
  assert.equal(answer.data.length, 2);
  assert(answer.data[0].embedding.every((number) => typeof number === "number"));
}

async function refused() {
  await assert.rejects(client.chat.completions.create({ model: "gpt-9", messages }), (error) => {
    assert(error instanceof OpenAI.NotFoundError);
    assert.equal(error.code, "model_not_found");
    return true;
  });
  await assert.rejects(
    client.chat.completions.create({ model, messages, temperature: 9 }),
    (error) => error instanceof OpenAI.BadRequestError && error.param === "temperature",
  );
  const stranger = new OpenAI({ baseURL, apiKey: "wrong", maxRetries: 0 });
  await assert.rejects(
    stranger.models.retrieve(model),
    (error) => error instanceof OpenAI.AuthenticationError && error.code === "invalid_api_key",
  );
}

const checks = [
  models,
  whole,
  streamed,
  leftEarly,
  called,
  structured,
  completed,
  embedded,
  refused,
];

async function main() {
  for (const check of checks) {
    await check();
    console.log("ok", check.name);
  }
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
