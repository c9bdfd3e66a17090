"""The evaluation: two sets of 100 questions and 50 tool calls each, in wordings that training never uses.

The errors on the first set show what to improve. The second is fresh: it was written after the generator,
and its errors are counted but not listed, so that nobody tunes for them.

`generate.py` draws again whenever it comes near one of them (`Guard`), so the questions stay unseen however it is changed.
"""
import json
import re
from pathlib import Path

import facts
import talk

CASES_PATH = Path(__file__).with_name("held_out.json")
FRESH_PATH = Path(__file__).with_name("held_out_fresh.json")

NEAR = 0.8  # two questions are too near when they share more than this part of their words
WITHIN_WORDS = 4  # shorter questions may be part of longer ones

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


def load(path=CASES_PATH):
    return json.loads(path.read_text())


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
    """All questions of both sets, follow-ups too."""
    return {normalise(q) for path in (CASES_PATH, FRESH_PATH) for row in load(path)["talk"] for q in row["say"]}


def tool_shapes():
    """The tool questions of both sets with `{}` in place of every value."""
    return {normalise(case["shape"]) for path in (CASES_PATH, FRESH_PATH) for case in load(path)["tools"]}


class Guard:
    """Keeps training away from held-out questions: the same words, nearly the same, or the same within a longer text."""

    def __init__(self, questions):
        self.questions = questions
        self.long = [f" {q} " for q in questions if len(q.split()) >= WITHIN_WORDS]
        self.having = {}
        for words in (frozenset(q.split()) for q in questions):
            for word in words:
                self.having.setdefault(word, []).append(words)

    def close_to(self, words):
        """Questions that may be too near: such a one lacks fewer than `1 / NEAR - 1` of these words, so has one of the rarest."""
        rarest = sorted(words, key=lambda word: (len(self.having.get(word, ())), word))
        return (q for word in rarest[:int(len(words) * (1 / NEAR - 1)) + 1] for q in self.having.get(word, ()))

    def refuses(self, text):
        text = normalise(text)
        words = frozenset(text.split())
        if text in self.questions or any(q in f" {text} " for q in self.long):
            return True
        return any(len(q & words) > NEAR * len(q | words) for q in self.close_to(words))
