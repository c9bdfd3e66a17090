"""Reads `facts.txt` and asks about its facts in many ways."""
from dataclasses import dataclass, field
from pathlib import Path

from grammar import TERM_FRAMES, say
from synonyms import loosened, thinned

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
    question = say(rng.choice(fact.asks), rng)
    if rng.random() < 0.4:
        question = loosened(question, rng)
    if rng.random() < 0.12:
        question = thinned(question, rng)
    return framed(question, rng)


WISHES = ("I want to ", "I would like to ", "I need to ", "I'd like to ", "I wish to ", "I am trying to ")
AFTER_WISH = [", how?", ", how do I do that?", ". How?", ", what do I type?", ". Which command is that?", ", is that possible?", ". What do I run?", ", how does it work?", ". How do I do it?", ", what now?"]
INDIRECT = ["can you tell me {q}", "tell me {q}", "I want to know {q}", "could somebody tell me {q}", "I wonder {q}", "please say {q}", "do you know {q}", "does anybody know {q}", "I'd like to know {q}", "explain {q}"]
CONTEXT = """I am new here.|I just installed it.|I have a question.|My friend told me about mesh-llm.|I have two laptops.|I use it at home.|I am at work.|There is something I do not understand.|I read the manual.|I have a small problem.|I have a new computer.|We are three people.|I am a beginner.|My computer is old.|It is my first day with mesh-llm.|I tried it yesterday.|I have a PC at home.|I like it.|Help.|My brother asked me.|One more thing.|I use Linux.|I have a Mac.|This is great.|I am not sure.|We have a server in the office.""".split("|")


def framed(question, rng):
    """The same question with a little more around it."""
    dice = rng.random()
    if question.startswith(WISHES):
        return question + rng.choice(AFTER_WISH) if dice < 0.6 else question
    if question.startswith(("what", "how", "where", "which", "who", "whether")) and dice < 0.08:
        return rng.choice(INDIRECT).replace("{q}", question)
    if dice < 0.18:
        return rng.choice(CONTEXT) + " " + question
    return question
