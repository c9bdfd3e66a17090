"""The evaluation: 100 questions and 50 tool calls in wordings that training never uses.

`generate.py` draws again whenever it hits one of them, so the questions stay unseen however it is changed.
"""
import json
import re
from pathlib import Path

import facts
import talk

CASES_PATH = Path(__file__).with_name("held_out.json")


POLITE = (
    r"^(please|can you|could you|would you|i want you to|i need you to|kindly|now|hey|hi|hello|so|and|ok|okay|well"
    r"|sorry|excuse me|one question|quick question|question)\b|\b(please|thanks|thank you|then|now|here|for me)$"
)


def normalise(text):
    """The core of a question: lower case, letters, digits and braces only, no words of politeness."""
    text = " ".join(re.sub(r"[^a-z0-9{}]+", " ", text.lower()).split())
    while (shorter := re.sub(POLITE, "", text).strip()) and shorter != text:
        text = shorter
    return text


def load():
    return json.loads(CASES_PATH.read_text())


def expected(about):
    """Strings that a right answer to a question `about` something must contain."""
    kind, _, rest = about.partition(":")
    if kind == "memory":
        return [f"{rest} GB", talk.model_for(int(rest)) + " at"]
    if kind == "count":
        first, last = rest.split("-")
        return ["=" + talk.count_text(int(first), int(last))]
    if kind == "unknown":
        return ["I do not know"]
    if kind == "say":
        return ["=" + rest]
    if kind == "has":
        return [rest]
    if kind == "talk":
        return ["=" + talk.SIMPLE[rest][0]]
    return facts.load()[kind].keys


def normalised_questions():
    """All questions of the evaluation, follow-ups too."""
    return {normalise(q) for row in load()["talk"] for q in row["say"]}


def tool_shapes():
    """The tool questions with `{}` in place of every value."""
    return {normalise(case["shape"]) for case in load()["tools"]}
