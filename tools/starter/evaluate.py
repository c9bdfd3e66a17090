"""Asks the GGUF file the held-out questions through llama.cpp, greedily, and writes the score.

    python evaluate.py --model starter.gguf --vocabulary build/vocabulary.json [--fresh] [--score SCORE.md] [--url URL]

Prompts are rendered with the template inside the GGUF. With `--url` a running mesh-llm that serves the same
file is asked too, through its chat completions; the score then has both. A question counts as right when every expected
string is in the answer (`=`: when it is the whole answer). A tool call counts when it parses, is the only
call, names the right tool, and has exactly the right arguments.
"""
import argparse
import json
import random
import re
import urllib.request
from pathlib import Path

import gguf
import xllamacpp
from tokenizers import Tokenizer

import generate
import held_out
from prompt import render

TOKENS_MAX = 200  # the longest right answer has 80
CHECKED_TEXTS = 500


class Llama:
    """The model in llama.cpp, as a local server."""

    def __init__(self, path):
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx, params.n_parallel, params.port = 4096, 1, 0
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        params.verbosity = -1
        self.server = xllamacpp.Server(params)
        field = gguf.GGUFReader(str(path)).get_field("tokenizer.chat_template")
        self.template = field.contents()

    def complete(self, prompt):
        """Greedy continuation of `prompt`, special tokens included."""
        request = {
            "prompt": prompt, "temperature": 0, "top_k": 1, "n_predict": TOKENS_MAX, "cache_prompt": True, "seed": 1,
            "repeat_penalty": 1.0, "stop": ["<|im_end|>"],
        }
        answer = self.server.handle_completions(request)
        answer = json.loads(answer) if isinstance(answer, str) else answer
        return answer["choices"][0]["text"] if "choices" in answer else answer["content"]

    def tokenize(self, text):
        body = json.dumps({"content": text, "parse_special": True, "add_special": False}).encode()
        request = urllib.request.Request(self.server.listening_address + "/tokenize", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply)["tokens"]

    def answer(self, messages, tools=None):
        return self.complete(render(messages, tools, source=self.template)).strip()

    def call(self, case):
        """`(call, answer)` to a tool case; no call unless it is the whole answer."""
        answer = self.answer([{"role": "user", "content": case["ask"]}], case["tools"])
        found = re.fullmatch(r"<tool_call>\n(.*)\n</tool_call>", answer, re.S)
        return found and parsed(found.group(1)), answer


class Served:
    """The model in a running mesh-llm."""

    def __init__(self, url):
        self.url = url.rstrip("/").removesuffix("/v1") + "/v1/chat/completions"

    def ask(self, messages, **more):
        """The message that answers `messages`, drawn greedily."""
        body = {"model": "auto", "messages": messages, "temperature": 0, "max_tokens": TOKENS_MAX, "seed": 1, **more}
        request = urllib.request.Request(self.url, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply)["choices"][0]["message"]

    def answer(self, messages):
        return (self.ask(messages).get("content") or "").strip()

    def call(self, case):
        """`(call, answer)` to a tool case; no call unless it is the whole answer."""
        message = self.ask([{"role": "user", "content": case["ask"]}], tools=case["tools"], tool_choice="auto")
        content, calls = (message.get("content") or "").strip(), message.get("tool_calls") or []
        functions = [{"name": c["function"]["name"], "arguments": parsed(c["function"]["arguments"])} for c in calls]
        whole = len(functions) == 1 and not content
        return functions[0] if whole else None, json.dumps(functions, ensure_ascii=False) if functions else content


def parsed(text):
    """`text` as JSON; None if it is none."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return None


def ask_talk(model, row):
    """`(right, last answer)` of a chat of one or more questions; the model's own answers stay in it."""
    messages = []
    for question in row["say"]:
        messages.append({"role": "user", "content": question})
        answer = model.answer(messages)
        messages.append({"role": "assistant", "content": answer})
    want = held_out.expected(row["about"])
    return all(answer == w[1:] if w.startswith("=") else w in answer for w in want), answer


def ask_tool(model, case):
    """`(right, answer)` of one tool case."""
    call, answer = model.call(case)
    return call == {"name": case["name"], "arguments": case["arguments"]}, answer


def differing_texts(llama, vocabulary):
    """Of fresh training texts and odd ones, those that llama.cpp cuts into other tokens than training did."""
    rng, tokenizer = random.Random(99), Tokenizer.from_file(str(vocabulary))
    texts = ["".join(generate.chat(rng, 0.3)) for _ in range(CHECKED_TEXTS - 6)]
    texts += ["Grüße aus Köln, naïve café", "日本語 and Русский 1234567", "a\n\n\n  b\t\tc   ", "don't WE'LL I'm", "x = {\"k\":[1,2.5e-3]}", "🙂 é ½ ٣"]
    return [t for t in texts if llama.tokenize(t) != tokenizer.encode(t).ids]


def ask_all(model, path):
    """`(questions, tool calls)` of a set, each a list of `(question, right, answer)`."""
    held = held_out.load(path)
    talk = [(" / ".join(r["say"]), *ask_talk(model, r)) for r in held["talk"]]
    return talk, [(c["ask"], *ask_tool(model, c)) for c in held["tools"]]


def table(runs, *more):
    """Lines of a table of what each of `runs` got right: `(name, (questions, tool calls))`. `more`: `(name, right, of)`, of llama.cpp."""
    lines = ["| what | of | " + " | ".join(name for name, _ in runs) + " |", "|---|---" + "|---" * len(runs) + "|"]
    for at, what in enumerate(("questions", "tool calls, name and all arguments")):
        sets = [asked[at] for _, asked in runs]
        right = [sum(ok for _, ok, _ in rows) for rows in sets]
        of = len(sets[0])
        lines.append(f"| {what} | {of} | " + " | ".join(f"{r} ({r / of:.0%})" for r in right) + " |")
    blank = " |" * (len(runs) - 1)
    return lines + [f"| {what} | {of} |{blank} {right} ({right / of:.0%}) |" for what, right, of in more]


def report(models, first, fresh, different, size, path):
    """`first` and `fresh`: what each of `models` answered; the first one's errors are listed."""
    wrong = [(n, a) for rows in first[0] for n, ok, a in rows if not ok]
    same = ("texts that llama.cpp tokenizes as training did", CHECKED_TEXTS - different, CHECKED_TEXTS)
    lines = ["# Score of the starter model", "", "Written by `evaluate.py`: greedy decoding, wordings that training never used.", ""]
    lines += table(list(zip(models, first)), same) + ["", f"File: {size / 1e6:.2f} MB.", ""]
    if fresh:
        lines += ["## Second set", "", "Written after the generator and never used to improve it (`held_out_fresh.json`); its errors are not listed, so that it stays so.", ""]
        lines += table(list(zip(models, fresh))) + [""]
    lines += [f"## What it got wrong in the first set, {models[0]}", ""]
    lines += [f"- {n}\n  - `{json.dumps(a, ensure_ascii=False)}`" for n, a in wrong] or ["Nothing."]
    text = "\n".join(lines) + "\n"
    if path:
        path.write_text(text)
    print(text)


def main():
    arg = argparse.ArgumentParser(description=__doc__)
    arg.add_argument("--model", type=Path, required=True)
    arg.add_argument("--vocabulary", type=Path, required=True)
    arg.add_argument("--fresh", action="store_true", help="also the second set")
    arg.add_argument("--score", type=Path)
    arg.add_argument("--url", help="a running mesh-llm that serves the same file, e.g. http://127.0.0.1:9337")
    args = arg.parse_args()
    llama = Llama(args.model)
    asked = {"llama.cpp alone": llama}
    if args.url:
        asked = {"as mesh-llm serves it": Served(args.url), **asked}
    first = [ask_all(model, held_out.CASES_PATH) for model in asked.values()]
    fresh = [ask_all(model, held_out.FRESH_PATH) for model in asked.values()] if args.fresh else None
    report(list(asked), first, fresh, len(differing_texts(llama, args.vocabulary)), args.model.stat().st_size, args.score)


if __name__ == "__main__":
    main()
