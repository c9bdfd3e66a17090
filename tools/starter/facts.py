"""Reads `facts.txt` and asks about its facts in many ways."""
from dataclasses import dataclass, field
from pathlib import Path

from grammar import TERM_FRAMES, say

FACTS_PATH = Path(__file__).with_name("facts.txt")


@dataclass
class Fact:
    """One thing to know: its answer, what a right answer contains, and how people ask for it."""

    name: str
    answer: str = ""
    keys: list = field(default_factory=list)
    terms: list = field(default_factory=list)
    asks: list = field(default_factory=list)


def load(path=FACTS_PATH):
    """All facts by name, in file order."""
    facts, fact = {}, None
    for number, line in enumerate(path.read_text().splitlines(), 1):
        mark, _, rest = line.partition(" ")
        if line.startswith("@"):
            fact = facts[line[1:].strip()] = Fact(line[1:].strip())
        elif mark == "=":
            fact.answer = rest.strip()
        elif mark == "k":
            fact.keys = [k.strip() for k in rest.split(";")]
        elif mark == "t":
            fact.terms = [t.strip() for t in rest.split("|")]
        elif mark == "?":
            fact.asks.append(rest.strip())
        elif line.strip() and mark != "#":
            raise ValueError(f"facts.txt:{number}: cannot read {line!r}")
    for fact in facts.values():
        missing = [k for k in fact.keys if k not in fact.answer]
        if missing or not fact.keys:
            raise ValueError(f"fact {fact.name}: keys {missing} are not in the answer")
    return facts


def ask(fact, rng):
    """A random question for `fact`."""
    if fact.terms and (not fact.asks or rng.random() < 0.4):
        return say(rng.choice(TERM_FRAMES), rng, t=rng.choice(fact.terms))
    return say(rng.choice(fact.asks), rng)
