"""A small language for many ways to say one thing.

`(a|b)` chooses, `[a]` may be left out, `{name}` is replaced by a macro first. Brackets nest.
"""
import re

MACROS = {
    "machine": "(machine|computer|PC|laptop|server|box|device|node)",
    "machines": "(machines|computers|PCs|laptops|servers|boxes|devices|nodes)",
    "how": "(how do I|how can I|how to|how would I|how do you|what is the way to|I want to|I would like to"
    "|which command lets me|what do I type to|can I|is there a way to|show me how to|I need to"
    "|what command do I use to|tell me how to|what is the command to|what should I run to|how does one"
    "|what do I run to|how could I|how should I|is it possible to|please explain how to|what must I do to"
    "|I'd like to|what do I do to|explain how to|what do I have to do to|how is it possible to|I wish to"
    "|I am trying to|what would I do to|what is the best way to|do you know how to|which command do I need to)",
    "which": "(which|what) (flag|option|switch|setting|argument|parameter)",
}
TERM_FRAMES = [
    "what (is|are|'s) {t}", "what does {t} (do|mean|stand for)", "explain {t} [to me]", "what is {t} (for|good for|used for|about)",
    "tell me [more|something] about {t}", "{t}", "how do I use {t}", "how (does|do) {t} work", "describe {t}",
    "(what|why) (would I use|do I need|should I use) {t} [for]", "when (do|would|should) I (use|need) {t}",
    "(can|could) you (explain|describe) {t} [to me]", "I do not (understand|know|get) {t}", "what (can|do) I (do|get) with {t}",
    "what do you know about {t}", "give me (information|details|help) (on|about) {t}", "help (me|) with {t}",
    "I have a question about {t}", "what is the (meaning|purpose|use|point|effect|idea) of {t}", "(and|so) what (is|about) {t}",
    "{t} (explained|please|help|meaning)", "I want to (know|learn|understand) (what {t} is|more about {t}|about {t})",
    "what exactly (is|are) {t}", "(define|clarify) {t}", "do you know {t}", "what happens (if|when) I (use|run|set|type) {t}",
    "what (is|was) {t} again", "could you tell me what {t} (is|does|means)", "what should I know about {t}",
]


def close(text, start):
    """Index of the bracket that closes the one at `start`."""
    depth = 0
    for i in range(start, len(text)):
        depth += text[i] in "(["
        depth -= text[i] in ")]"
        if depth == 0:
            return i
    raise ValueError(f"bracket not closed in {text!r}")


def alternatives(text):
    """Split at the `|` of the top level."""
    parts, depth, last = [], 0, 0
    for i, c in enumerate(text):
        depth += c in "(["
        depth -= c in ")]"
        if c == "|" and depth == 0:
            parts.append(text[last:i])
            last = i + 1
    return parts + [text[last:]]


def pick(text, rng):
    """One random phrase of a pattern whose macros are already replaced."""
    out, i = [], 0
    while i < len(text):
        c = text[i]
        if c in "([":
            end = close(text, i)
            if c == "(" or rng.random() < 0.4:
                out.append(pick(rng.choice(alternatives(text[i + 1:end])), rng))
            i = end + 1
        else:
            out.append(c)
            i += 1
    return "".join(out)


def tidy(text):
    """Undo double blanks and blanks before punctuation, which empty parts leave behind."""
    text = re.sub(r"\s+", " ", text).strip()
    return re.sub(r" ('s\b|[?,;]|\.(?= |$))", r"\1", text)


def say(pattern, rng, **slots):
    """One random phrase of `pattern`, macros and `slots` filled in."""
    for name, body in MACROS.items():
        pattern = pattern.replace("{" + name + "}", body)
    text = tidy(pick(pattern, rng))
    for name, value in slots.items():
        text = text.replace("{" + name + "}", value)
    return text
