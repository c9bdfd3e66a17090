"""Other words for the same thing, or fewer words, so that a question is not tied to the words of its pattern."""
import re

SAME = [group.split("|") for group in """
machine|computer|PC
laptop|notebook
show|display|print|list
find out|learn|discover|see
see|view|look at
start|launch|run|begin
stop|end|quit|halt
want to|would like to|wish to|intend to|plan to|have to|need to|am about to
want|need|would like|wish for
big|large|huge|giant
bigger|larger
small|little|tiny
fast|quick|rapid
quickly|fast|rapidly
make|create|produce
get|obtain|receive|fetch
use|work with|employ
choose|select|pick
remove|delete|get rid of
model|LLM|language model
memory|RAM
also|too|as well
right now|now|currently|at the moment
possible|doable
how do I|how can I|how could I|how does one|how would I|in what way do I|how am I supposed to
can I|could I|may I|am I able to|is it possible to
is there a way to|is there any way to|is it possible to|do you know how to|am I able to
which command|what command|what kind of command
which flag|which option|what switch|what flag|which setting
tell me|let me know|say
several|multiple|many|a few|more than one
another|a different|some other|a second
my friend|a friend|my colleague|my neighbour|my uncle|somebody|someone
at the same time|simultaneously|at once|in parallel|side by side
set|specify|define|adjust
change|modify|alter|adjust|replace
explain|describe|clarify
folder|directory|place
question|query
answer|reply|response
cost|price
gave|sent|handed
turn off|switch off|disable|deactivate
turn on|switch on|enable|activate
need|require
without|with no
because|since
connect|link|attach|hook up
join|enter|become part of
happens|occurs
should|must|shall|ought to
let|allow
help|assist
work|function
work together|cooperate|team up
check|test|verify|see
write|put
open|load
search for|look for|look up|find
give me|hand me|get me|send me|I need|I want
purpose|use|point|goal
good|suitable|right|fitting|fine
how many|what number of
when|once|as soon as
if|when|in case
maximum|most|upper limit
limit|restrict|cap
""".strip().splitlines()]
OTHERS = {}
for _group in SAME:
    for _word in _group:
        OTHERS.setdefault(_word, []).extend(w for w in _group if w != _word)
PATTERN = re.compile(r"(?<![\w{/`.-])(" + "|".join(sorted(map(re.escape, OTHERS), key=len, reverse=True)) + r")(?![\w}/`.=-])")


def loosened(text, rng, share=0.3):
    """`text` with some of its words replaced by others of the same meaning."""
    return PATTERN.sub(lambda found: rng.choice(OTHERS[found[0]]) if rng.random() < share else found[0], text)


SPARED = re.compile(r"\b(the|a|an|my|me|I|you|it|is|are|do|does|can|could|would|will|have|that|this|some|any|there|please|so|just|to be|of) ")


def thinned(text, rng, share=0.4):
    """`text` without some of the words that it can be understood without, as of one who types in a hurry."""
    return SPARED.sub(lambda found: "" if rng.random() < share else found[0], text)
