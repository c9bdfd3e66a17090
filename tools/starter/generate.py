"""Writes the training text of the starter model: chats as token ids with a mask of what to learn.

    python generate.py --out build/data.npz --tokens 12000000 --seed 1 [--mix talk=1,tools=1]

Everything comes from one seeded generator; no question of the evaluation is ever used.
"""
import argparse
import json
import random
import re
import time
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

import facts
import talk
import toolbox
import values
import vocabulary
from grammar import say
from held_out import normalise, normalised_questions, tool_shapes
from prompt import render

FACTS = facts.load()
FACT_LIST = list(FACTS.values())
BANNED = normalised_questions()
BANNED_SHAPES = tool_shapes()
TOKENS_MAX = 1400  # longest chat that is kept; longer ones slow training and teach nothing new
SYSTEMS = [
    "You are a helpful assistant.", "You are the starter model of mesh-llm.", "Answer briefly.", "You are a helpful AI assistant.",
    "You are mesh-llm's assistant. Answer in plain sentences.", "Be short and polite.", "You are an assistant that can use tools.",
    "Use a tool when one fits.", "You are a friendly bot.", "Help the user.", "You are a precise assistant. Be concise.",
    "Answer the questions of the user as well as you can.", "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
]
BEFORE = ["please ", "hey, ", "hi, ", "hello, ", "one question: ", "question: ", "so, ", "sorry, ", "ok, ", "and ", "excuse me, ", "quick question: ", "well, ", "now ", "ok so ", "hi! "]
AFTER = [" please", ", please", " thanks", ", thank you", " then", " now", " exactly", " here", ", by the way"]


def typo(text, rng):
    """One slip of the fingers: swapped, lost or doubled letters."""
    places = [i for i in range(1, len(text) - 2) if text[i].isalpha() and text[i + 1].isalpha()]
    if not places:
        return text
    i, kind = rng.choice(places), rng.random()
    if kind < 0.4:
        return text[:i] + text[i + 1] + text[i] + text[i + 2:]
    if kind < 0.75:
        return text[:i] + text[i + 1:]
    return text[:i] + text[i] + text[i:]


def as_typed(text, rng, careful=False):
    """The question as a person types it. `careful` keeps values of tool calls untouched."""
    if rng.random() < 0.14:
        text = rng.choice(BEFORE) + text
    if not careful:
        if rng.random() < 0.08:
            text += rng.choice(AFTER)
        if rng.random() < 0.07:
            text = typo(text, rng)
        if rng.random() < 0.1:
            text = text.lower()
    mark = rng.random()
    asking = re.match(r"(what|how|why|who|when|where|which|is|are|do|does|can|could|will|would|should|may|must)\b", text)
    if asking:
        text += "?" if mark < 0.7 else ""
    elif not re.search(r"[.!?]$", text):
        text += "." if mark < 0.35 else "!" if mark < 0.42 else "?" if mark < 0.52 else ""
    return text


def capital(text, rng, keep=()):
    """Mostly starts with a capital letter, unless the text starts with a value to be copied."""
    if rng.random() < 0.55 and not any(text.startswith(str(k)) for k in keep if str(k)):
        return text[:1].upper() + text[1:]
    return text


def fact_pair(rng):
    fact = rng.choice(FACT_LIST)
    return facts.ask(fact, rng), fact.answer


def which_model(rng):
    return say(rng.choice(talk.WHICH_MODEL), rng), talk.WHICH_ANSWER


TALKS = [  # kind of talk and its weight
    (fact_pair, 50), (talk.memory, 8), (talk.memory_need, 3), (which_model, 1), (talk.counting, 11), (talk.small_sum, 3),
    (talk.echo, 10), (talk.lookup, 6), (talk.unknown, 9), (talk.simple, 7),
]


def talk_pair(rng):
    """A question and its answer, as typed, never one of the evaluation."""
    while True:
        kind = rng.choices([k for k, _ in TALKS], [w for _, w in TALKS])[0]
        question, answer = kind(rng)
        if kind is talk.echo:
            typed = capital(question, rng) if question[:3] in ("say", "rep", "ple", "can", "wri") else question
        elif kind is talk.lookup:
            typed = question
        else:
            typed = capital(as_typed(question, rng), rng)
        if normalise(typed) not in BANNED:
            return typed, answer


def turn(role, content):
    return {"role": role, "content": content}


def name_turns(rng):
    """The user tells a name and asks for it later."""
    who = values.full_name(rng)
    out = [turn("user", capital(say(rng.choice(talk.NAME_TELL), rng, p=who), rng) + rng.choice([".", "", "!"])), turn("assistant", f"Nice to meet you, {who}!")]
    if rng.random() < 0.75:
        for _ in range(rng.choice([0, 0, 1])):
            q, a = talk_pair(rng)
            out += [turn("user", q), turn("assistant", a)]
        q = capital(as_typed(say(rng.choice(talk.NAME_ASK), rng), rng), rng)
        out += [turn("user", q), turn("assistant", f"Your name is {who}.")]
    return out


def talk_turns(rng, least=1):
    """A chat without tools, one to four exchanges."""
    if rng.random() < 0.05:
        return name_turns(rng)
    out = []
    for i in range(max(least, rng.choices([1, 2, 3, 4], [0.72, 0.16, 0.08, 0.04])[0])):
        dice = rng.random()
        if i and dice < 0.1:
            q, a = capital(as_typed(say(rng.choice(talk.AGAIN), rng), rng), rng), out[-1]["content"]
        elif i and dice < 0.2:
            answer, patterns = talk.SIMPLE[rng.choice(["thanks", "thanks", "bye", "ok"])]
            q, a = capital(as_typed(say(rng.choice(patterns), rng), rng), rng), answer
        elif rng.random() < 0.012:
            q, a = capital(as_typed(say(rng.choice(talk.NAME_ASK), rng), rng), rng), "I do not know your name yet."
        else:
            q, a = talk_pair(rng)
        out += [turn("user", q), turn("assistant", a)]
    return out


RESULT_KEYS = "temperature condition wind time result status price count name title city humidity answer total id state value unit message date weight size colour speed distance duration owner level rain text score currency euros sent done ok file lines success".split()


def sentence_part(key, value):
    shown = {True: "true", False: "false", None: "null"}.get(value, value) if isinstance(value, (bool, type(None))) else value
    return f"the {key.replace('_', ' ')} is {shown}"


def tool_result(rng):
    """What a tool returns and the plain sentence about it."""
    dice = rng.random()
    if dice < 0.55:
        keys = [values.made_up_word(rng) if rng.random() < 0.12 else k + (("_" + rng.choice(RESULT_KEYS)) if rng.random() < 0.1 else "") for k in rng.sample(RESULT_KEYS, rng.choice([1, 1, 2, 2, 3]))]
        drawn = {k: rng.choice([values.number, values.small_integer, values.any_word, values.person, lambda r: values.phrase(r, 1, 3), values.clock, lambda r: r.choice([True, False])])(rng) for k in keys}
        content = json.dumps(drawn, ensure_ascii=False, separators=rng.choice([(", ", ": "), (", ", ": "), (",", ":")]))
        parts = [sentence_part(k, x) for k, x in drawn.items()]
        joined = parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
        return content, joined[0].upper() + joined[1:] + "."
    if dice < 0.7:
        n = json.dumps(values.number(rng))
        return n, f"The answer is {n}."
    if dice < 0.8:
        problem = values.phrase(rng, 1, 4)
        content = rng.choice([json.dumps({"error": problem}), "Error: " + problem, "error: " + problem])
        return content, f"The tool reports an error: {problem}."
    text = values.phrase(rng, 1, 7)
    return text, f"The answer is: {text}."


def call_text(call):
    return {"type": "function", "function": {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)}}


def drawn_call(draw, rng):
    """A call whose question is typed by a person and whose wording is not of the evaluation."""
    while True:
        call = draw()
        if normalise(call.shape) not in BANNED_SHAPES and normalise(call.question) not in BANNED:
            break
    typed = as_typed(call.question, rng, careful=True)
    typed = capital(typed, rng, keep=call.arguments.values())
    return call, rng.choice(facts.CONTEXT) + " " + typed if rng.random() < 0.05 else typed


def toolset(rng):
    """One to six different tools, shuffled, and how to draw calls of each."""
    wanted = rng.choices([1, 2, 3, 4, 5, 6], [0.28, 0.36, 0.2, 0.1, 0.04, 0.02])[0]
    tools, draws, kinds = [], [], []
    while len(tools) < wanted:
        kind = toolbox.random_kind(rng)
        if kind in kinds and kind is not toolbox.INVENTED:
            continue
        tool, draw = kind.make(rng)
        if tool["function"]["name"] not in [t["function"]["name"] for t in tools]:
            tools.append(tool)
            draws.append(draw)
            kinds.append(kind)
    return tools, draws, kinds


def stray_question(kinds, rng):
    """A question that no tool of `kinds` can answer."""
    if rng.random() < 0.6:
        while True:
            q, a = talk_pair(rng)
            looks_like_tool = re.search(r"\b(weather|time|plus|minus|sum|search|translate|define|count|play|book|order|buy|call|add|find|open|show|news|list|say|write|files?|price|send|stop|status|times|divided|\d \+)\b", q.lower())
            if not looks_like_tool or rng.random() < 0.02:
                return q, a
    while True:
        kind = rng.choice(toolbox.KINDS)
        related = {n for k in kinds if isinstance(k, toolbox.Kind) for n in k.slots}
        if kind not in kinds and not (set(kind.slots) & related):
            _, draw = kind.make(rng)
            _, typed = drawn_call(draw, rng)
            return typed, talk.DONT_KNOW


def tool_turns(rng):
    """A chat with tools: questions, calls, results, answers, and questions where no tool fits."""
    tools, draws, kinds = toolset(rng)
    out = []
    for _ in range(rng.choices([1, 2, 3, 4, 5], [0.15, 0.25, 0.25, 0.2, 0.15])[0]):
        if rng.random() < 0.16:
            q, a = stray_question(kinds, rng)
            out += [turn("user", q), turn("assistant", a)]
            continue
        draw = rng.choice(draws)
        call, typed = drawn_call(draw, rng)
        calls = [call]
        if rng.random() < 0.06:
            other, typed_too = drawn_call(rng.choice(draws), rng)
            calls.append(other)
            typed = typed.rstrip("?.!") + rng.choice([" and ", ". And ", ", then ", ". Then ", ", and "]) + typed_too
        out += [turn("user", typed), {"role": "assistant", "content": "", "tool_calls": [call_text(c) for c in calls]}]
        if rng.random() < 0.4:
            results = [tool_result(rng) for _ in calls]
            out += [turn("tool", r) for r, _ in results]
            out.append(turn("assistant", " ".join(a for _, a in results)))
    return out, tools


def chat(rng, tools_share):
    """Text of one training chat."""
    tools = None
    if rng.random() < tools_share:
        messages, tools = tool_turns(rng)
    else:
        messages = talk_turns(rng)
    if rng.random() < 0.25:
        known = rng.random() < 0.8
        messages.insert(0, turn("system", rng.choice(SYSTEMS) if known else "You are " + values.phrase(rng, 1, 9) + "."))
    style = rng.choices(["spaced", "compact", "sorted", "compact sorted"], [0.76, 0.08, 0.08, 0.08])[0]
    text = render(messages, tools, generate=False, style=style)
    if rng.random() < 0.15 and messages[-1]["role"] == "assistant":
        cut = text.rindex("<|im_start|>assistant\n") + len("<|im_start|>assistant\n")
        text = text[:cut] + "<think>\n\n</think>\n\n" + text[cut:]
    return text


def spoken_corpus(rng, count):
    """Texts to train the vocabulary on: all texts, and those in plain sentences."""
    chats = [chat(rng, 0.35) for _ in range(count)]
    spoken = [f.answer for f in FACT_LIST for _ in range(20)]
    for _ in range(count):
        spoken += [" " + x for x in talk_pair(rng)]
    return chats + spoken, spoken


def learn_mask(ids, marks):
    """1 for tokens that the assistant says, its end mark included; 0 elsewhere."""
    start, end, role, think_end = marks
    mask, inside, i = np.zeros(len(ids), np.uint8), False, 0
    while i < len(ids):
        if ids[i] == start:
            inside = list(ids[i + 1:i + 1 + len(role)]) == role
            i += len(role) if inside else 0
        elif inside:
            mask[i] = 1
            if ids[i] == think_end:  # the empty thought is given, not said
                mask[i - 2:i + 1] = 0
                i += 1
            if ids[i] == end:
                inside = False
        i += 1
    return mask


def main():
    arg = argparse.ArgumentParser(description=__doc__)
    arg.add_argument("--out", type=Path, required=True)
    arg.add_argument("--tokens", type=int, required=True)
    arg.add_argument("--seed", type=int, required=True)
    arg.add_argument("--tools-share", type=float, default=0.25, help="share of chats with tools")
    arg.add_argument("--vocabulary", type=Path, required=True, help="made when it is missing")
    args = arg.parse_args()
    begun = time.time()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    if not args.vocabulary.exists():
        vocabulary.build(*spoken_corpus(random.Random(0), 12000)).save(str(args.vocabulary))
    tokenizer = Tokenizer.from_file(str(args.vocabulary))
    role = tokenizer.encode("assistant\n").ids
    marks = (*(tokenizer.token_to_id(t) for t in ("<|im_start|>", "<|im_end|>")), role, tokenizer.token_to_id("</think>"))
    rng = random.Random(args.seed)
    ids, masks, lengths, total = [], [], [], 0
    while total < args.tokens:
        for encoded in tokenizer.encode_batch([chat(rng, args.tools_share) for _ in range(1000)]):
            if len(encoded.ids) <= TOKENS_MAX:
                ids.append(np.array(encoded.ids, np.uint16))
                masks.append(learn_mask(encoded.ids, marks))
                lengths.append(len(encoded.ids))
                total += len(encoded.ids)
    np.savez(args.out, ids=np.concatenate(ids), mask=np.concatenate(masks), lengths=np.array(lengths))
    learned = sum(int(m.sum()) for m in masks)
    print(f"{len(lengths)} chats, {total} tokens, {learned} learned, vocabulary {tokenizer.get_vocab_size()}, {time.time() - begun:.0f} s")


if __name__ == "__main__":
    main()
