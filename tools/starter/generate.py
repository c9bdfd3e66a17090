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
from held_out import Guard, normalised_questions, tool_shapes
from prompt import render

FACTS = facts.load()
FACT_LIST = list(FACTS.values())
QUESTIONS = Guard(normalised_questions())
SHAPES = Guard(tool_shapes())
TOKENS_MAX = 576  # of a chat; longer ones slow training and teach nothing new
BRANCHES, DENSE_BRANCHES = (5, 10), (8, 13)  # so many chats go on from one prompt with tools
DENSE_EXCHANGES, DENSE_STRAYS = 0.1, 0.08  # of the chats with tools
DENSE_LOOKUPS = 0.08  # of the chats without tools
SYSTEMS = [
    "You are a helpful assistant.", "You are the starter model of mesh-llm.", "Answer briefly.", "You are a helpful AI assistant.",
    "You are mesh-llm's assistant. Answer in plain sentences.", "Be short and polite.", "You are an assistant that can use tools.",
    "Use a tool when one fits.", "You are a friendly bot.", "Help the user.", "You are a precise assistant. Be concise.",
    "Answer the questions of the user as well as you can.", "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
]
BEFORE = ["please ", "hey, ", "hi, ", "hello, ", "one question: ", "question: ", "so, ", "sorry, ", "ok, ", "and ", "excuse me, ", "quick question: ", "well, ", "now ", "ok so ", "hi! "]
AFTER_VALUE = [" please", ", please", " please", " for me", " for me please", " for me, please", " thanks", ", thanks", ", thank you", " if you can", ", will you", ", ok", " if possible", ", would you", " and thanks"]
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
    elif rng.random() < 0.12:
        text += rng.choice(AFTER_VALUE)
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


def talk_pair(rng, only=None):
    """A question and its answer, as typed, never one of the evaluation; of the kind `only`, if given."""
    while True:
        kind = only or rng.choices([k for k, _ in TALKS], [w for _, w in TALKS])[0]
        question, answer = kind(rng)
        if QUESTIONS.refuses(question):
            continue
        if kind is talk.echo:
            typed = capital(question, rng) if question[:3] in ("say", "rep", "ple", "can", "wri") else question
        elif kind is talk.lookup:
            typed = question
        else:
            typed = capital(as_typed(question, rng), rng)
        if not QUESTIONS.refuses(typed):
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
        if not SHAPES.refuses(call.shape) and not QUESTIONS.refuses(call.question):
            break
    typed = as_typed(call.question, rng, careful=True)
    typed = capital(typed, rng, keep=call.arguments.values())
    return call, rng.choice(facts.CONTEXT) + " " + typed if rng.random() < 0.05 else typed


def toolset(rng, shares=(0.27, 0.36, 0.24, 0.09, 0.02, 0.02)):
    """One to six different tools, shuffled, and how to draw calls of each."""
    wanted = rng.choices(range(1, len(shares) + 1), shares)[0]
    tools, draws, kinds = [], [], []
    group = rng.choice(toolbox.GROUPS) if rng.random() < 0.5 else None
    while len(tools) < wanted:
        near = group and not all(k in kinds for k in group) and rng.random() < 0.8
        kind = rng.choice(group) if near else toolbox.random_kind(rng)
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
    dice = rng.random()
    if dice < 0.12:
        return talk_pair(rng, talk.simple)
    if dice < 0.65:
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


def tool_exchange(draws, kinds, rng):
    """A question to a model with tools, its call or its refusal, and often the result and an answer."""
    if rng.random() < 0.13:
        q, a = stray_question(kinds, rng)
        return [turn("user", q), turn("assistant", a)]
    call, typed = drawn_call(rng.choice(draws), rng)
    calls = [call]
    if rng.random() < 0.03:
        other, typed_too = drawn_call(rng.choice(draws), rng)
        calls.append(other)
        typed = typed.rstrip("?.!") + rng.choice([" and ", ". And ", ", then ", ". Then ", ", and "]) + typed_too
    out = [turn("user", typed), {"role": "assistant", "content": "", "tool_calls": [call_text(c) for c in calls]}]
    if rng.random() < 0.25:
        results = [tool_result(rng) for _ in calls]
        out += [turn("tool", r) for r, _ in results]
        out.append(turn("assistant", " ".join(a for _, a in results)))
    return out


def system_turn(rng):
    if rng.random() >= 0.25:
        return []
    known = rng.random() < 0.8
    return [turn("system", rng.choice(SYSTEMS) if known else "You are " + values.phrase(rng, 1, 9) + ".")]


def written(messages, tools, rng, style="spaced"):
    """Text of a chat; sometimes its last answer follows the empty thought of a request without thinking."""
    text = render(messages, tools, generate=False, style=style)
    if rng.random() < 0.15 and messages[-1]["role"] == "assistant":
        cut = text.rindex("<|im_start|>assistant\n") + len("<|im_start|>assistant\n")
        text = text[:cut] + "<think>\n\n</think>\n\n" + text[cut:]
    return text


def tool_chat(rng):
    """A system prompt full of tools, then several chats that go on from it: each as if it were the only one."""
    tools, draws, kinds = toolset(rng)
    style = rng.choices(["spaced", "compact", "sorted", "compact sorted"], [0.88, 0.04, 0.04, 0.04])[0]
    parts = [render(system_turn(rng), tools, generate=False, style=style)]
    for _ in range(rng.randint(*BRANCHES)):
        messages = []
        for _ in range(rng.choices([1, 2, 3], [0.8, 0.15, 0.05])[0]):
            messages += tool_exchange(draws, kinds, rng)
        parts.append(written(messages, None, rng))
    return parts


def terse(tools, rng):
    """The tools without most of the descriptions of their parameters."""
    for tool in tools:
        for schema in tool["function"].get("parameters", {}).get("properties", {}).values():
            if rng.random() < 0.6:
                schema.pop("description", None)
    return tools


def dense_tool_chat(rng):
    """As `tool_chat`, with more calls for fewer tokens: practice in choosing tools and parameters."""
    tools, draws, kinds = toolset(rng, (0.15, 0.45, 0.3, 0.1))
    style = rng.choices(["spaced", "compact"], [0.92, 0.08])[0]
    parts = [render(system_turn(rng), terse(tools, rng), generate=False, style=style)]
    for _ in range(rng.randint(*DENSE_BRANCHES)):
        dice = rng.random()
        if dice < DENSE_EXCHANGES:
            messages = tool_exchange(draws, kinds, rng)
        elif dice < DENSE_EXCHANGES + DENSE_STRAYS:
            question, answer = stray_question(kinds, rng)
            messages = [turn("user", question), turn("assistant", answer)]
        else:
            call, typed = drawn_call(rng.choice(draws), rng)
            messages = [turn("user", typed), {"role": "assistant", "content": "", "tool_calls": [call_text(call)]}]
        parts.append(written(messages, None, rng))
    return parts


def lookup_chat(rng):
    """A list in a question, then several ways in which that question ends: practice in finding the right place."""
    listed, asks = talk.listing(rng)
    first = render([turn("user", listed + "\n")], None, generate=False).removesuffix("<|im_end|>\n")
    return [first] + [render([turn("user", listed + "\n" + q), turn("assistant", a)], None, generate=False)[len(first):] for q, a in asks]


def dense_chat(rng, tools_share):
    if rng.random() < tools_share:
        return dense_tool_chat(rng)
    return lookup_chat(rng) if rng.random() < DENSE_LOOKUPS else chat(rng, 0)


def chat(rng, tools_share):
    """Parts of the text of a training chat: the first, and others that each go on from it."""
    if rng.random() < tools_share:
        return tool_chat(rng)
    return [written(system_turn(rng) + talk_turns(rng), None, rng)]


def corpus(rng, count):
    """Texts to train the vocabulary on. Frames are tokens of their own, so that nothing need be merged for them."""
    frames = re.compile("|".join(re.escape(t) for t in sorted(vocabulary.CONTROL + vocabulary.VISIBLE, key=len, reverse=True)))
    texts = ["".join(chat(rng, 0.2)) for _ in range(count)] + [f.answer for f in FACT_LIST for _ in range(20)]
    return [part for text in texts for part in frames.split(text)]


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
    arg.add_argument("--dense", action="store_true", help="more calls for fewer tokens")
    arg.add_argument("--oddity", type=float, default=1.0, help="scales how often words, names and parameters are invented")
    arg.add_argument("--vocabulary", type=Path, required=True, help="made when it is missing")
    args = arg.parse_args()
    begun, values.oddity = time.time(), args.oddity
    args.out.parent.mkdir(parents=True, exist_ok=True)
    if not args.vocabulary.exists():
        vocabulary.build(corpus(random.Random(0), 12000)).save(str(args.vocabulary))
    tokenizer = Tokenizer.from_file(str(args.vocabulary))
    role = tokenizer.encode("assistant\n").ids
    marks = (*(tokenizer.token_to_id(t) for t in ("<|im_start|>", "<|im_end|>")), role, tokenizer.token_to_id("</think>"))
    rng, draw = random.Random(args.seed), dense_chat if args.dense else chat
    ids, masks, branches, lengths = [], [], [], []
    while sum(lengths) < args.tokens:
        chats = [draw(rng, args.tools_share) for _ in range(1000)]
        encoded = iter(tokenizer.encode_batch([part for parts in chats for part in parts]))
        for parts in chats:
            of_chat = [next(encoded).ids for _ in parts]
            while sum(map(len, of_chat)) > TOKENS_MAX:
                of_chat.pop()
            if len(of_chat) == (1 if len(parts) > 1 else 0):
                continue
            ids += [np.array(p, np.uint16) for p in of_chat]
            masks += [learn_mask(p, marks) for p in of_chat]
            branches += [np.full(len(p), number, np.uint8) for number, p in enumerate(of_chat)]
            lengths.append(sum(map(len, of_chat)))
    learned = sum(int(m.sum()) for m in masks)
    np.savez(args.out, ids=np.concatenate(ids), mask=np.concatenate(masks), branch=np.concatenate(branches), lengths=np.array(lengths))
    print(f"{len(lengths)} chats, {sum(lengths)} tokens, {learned} learned, vocabulary {tokenizer.get_vocab_size()}, {time.time() - begun:.0f} s")


if __name__ == "__main__":
    main()
