"""Short texts as people write them: messages, searches, tasks, titles. Half of them use rare or invented words."""
import values as v
from grammar import say

FIRST, LAST = v.WORDS.index, v.WORDS
NOUNS = LAST[:FIRST("ancient")] + LAST[FIRST("budget"):]
ADJECTIVES = LAST[FIRST("ancient"):FIRST("arrive")]
VERBS = LAST[FIRST("arrive"):FIRST("about")]
WHEN = "(tomorrow|today|tonight|soon|at noon|on Monday|on Friday|next week|this evening|in the morning|after lunch|before dinner|at {h} o'clock|in an hour|later|every day)"
MESSAGES = [
    "the {n} is {a}", "the {n} is (here|ready|gone|over|open|closed|broken|missing|too {a}|not {a}|very {a})", "I (will be|am|was) {a} {w}", "I (will be|am) (late|early|home|there|busy|on my way|in the {n}) [{w}]",
    "(see you|meet me|wait for me|I am waiting|we are sitting|let us meet) (at|in|near|behind|in front of) the {n} [{w}]", "(bring|buy|take|send|check|fetch|clean|fix|sell|paint|close|open) (the|a|some|my|your|our) {n} [and the {n2}] [{w}]",
    "the {n} (starts|ends|arrives|leaves|opens|closes|begins|came|stopped) [{w}]", "we (need|want|have|lost|found|bought|sold|miss|like) (a|the|some|more|no|two) [{a}] {n}", "(thanks|thank you) for the [{a}] {n}",
    "where (is|are|was) (the|my|your) {n}", "(do|did|can|will) you (see|like|have|know|want|find|bring|need) (the|my|a|your) {n}", "(happy|good|bad) {n}", "the {n} and the {n2} are (ready|here|gone|late|{a})",
    "(he|she|it|they) (came|went|left|called|waited|moved) (to|at|from|with|into) the {n}", "there (is|was|will be) (a|no|one) {n} (in|on|under|behind|at) the {n2}", "(do not|never|always) {v} the {n}", "{N} is (on the way|here|late|waiting|sick|at home|at the {n})",
    "how (are you|is the {n}|is it going|was your {n})", "(my|your|his|her|our) {n} (does not work|is {a}|was stolen|has arrived|is in the {n2})", "(you|we|they) (won|lost|forgot|have|are) (the|our) {n}", "I (love|miss|found|sold|need|lost) (you|it|the {n}|my {n}) [{w}]",
    "it (is|was|will be) (too |very |so |)(late|early|{a})", "(can|could|shall) we (meet|talk|go|eat|{v}) [{w}]", "(yes|no|ok), (I will come|we can do it|it is {a}|the {n} is {a})", "what (is|was) the {n} of the {n2}", "(good|great) (morning|evening|night|news|luck)", "{n} is at {h}",
]
QUERIES = [
    "{a} {n}", "{a} {n} in {C}", "{n} {n2}", "{n} (for|with|without|of|in|near|from|at|on) {n2}", "{a} {n} (for|with|from) {n2}", "how to {v} (a|the) {n}", "how to {v} {n}", "(history|price|meaning|rules|map|pictures) of [the] {n}", "(best|cheap|used|old|new|good) {n} [in {C}]",
    "{n} {n2} {v}", "{n} of the {n2}", "{n}", "{a} {n} {n2}", "{n} and {n2}", "{C} {n}", "{n} in {C}", "{a} {a2} {n}", "why (is|are) {n} {a}", "what is [a] {n}", "where to {v} {n}", "{N}", "{n} 20{h}", "{n} {h}", "the {a} {n}", "(free|open|public) {n} near {C}",
]
TASKS = [
    "{v} the {n}", "{v} (my|a|some|the|this) {n}", "call (the|my) {n}", "(buy|get|order|bring|sell) {n} [and {n2}]", "{v} [the] {n} for {N}", "pick up (the|my) {n}", "meet {N} [at the {n}]", "pay (the|my) {n}", "go to the {n}", "{v} {N}", "{n} with {N}", "{a} {n}", "{n} {n2}", "{n}",
    "(take|put|carry) the {n} (out|away|in|to the {n2})", "{v} and {v2}", "(turn|switch) (off|on) the {n}", "write [to] {N}", "{N}'s {n}", "{n} (at|in|near) the {n2}", "the {n} of {N}", "{v} (about|with|for) the {n}", "look at the {a} {n}",
]
TITLES = ["{a} {n}", "{n} (of|in|and|on|for|to|at) {n2}", "{n}", "the {a} {n}", "the {n}", "{a} {n} {n2}", "{v} (the|a|my|your|me) [{n}]", "{n} {n2}", "my {a} {n}", "(no|one|two|every) {n}", "{v} (away|again|together|me {a})"]


def word(rng, known):
    return rng.choice(known) if rng.random() < 1 - 0.25 * v.oddity else v.made_up_word(rng)


def fill(patterns, rng):
    """One text of `patterns` with random words."""
    pattern = rng.choice(patterns).replace("{w}", WHEN)
    return say(
        pattern, rng, n=word(rng, NOUNS), n2=word(rng, NOUNS), a=word(rng, ADJECTIVES), a2=word(rng, ADJECTIVES), v=word(rng, VERBS),
        v2=word(rng, VERBS), N=v.person(rng), C=v.city(rng), h=str(rng.randint(1, 30)),
    )


def cased(text, rng, share=0.2):
    return text[:1].upper() + text[1:] if rng.random() < share else text


def of(patterns, least, most):
    """A generator of texts: half of `patterns`, half `least` to `most` random words."""
    return lambda rng: cased(fill(patterns, rng), rng) if rng.random() < 0.6 else v.phrase(rng, least, most)


message, query, task = of(MESSAGES, 2, 8), of(QUERIES, 1, 5), of(TASKS, 1, 5)


def title(rng):
    """Mostly with capitals, as titles of songs are."""
    text = fill(TITLES, rng)
    return " ".join(w.capitalize() for w in text.split()) if rng.random() < 0.7 else text


def subject(rng):
    return cased(fill(rng.choice([TASKS, QUERIES, TITLES]), rng), rng, 0.6)


def anything(rng):
    """Any short text or value, for practice in copying."""
    return rng.choice([message, query, task, title, v.email, v.filename, v.path, v.code, v.symbol, v.url, v.full_name, v.date])(rng)
