"""Talk besides the facts: memory advice, greetings, counting, echoes, names, and what it does not know."""
import phrases
from grammar import say
from synonyms import loosened
from values import WORDS, any_word, made_up_word, person, phrase

DONT_KNOW = (
    "I do not know. I am only a tiny starter model; load a bigger one with `mesh-llm --model NAME`."
)
# (least memory in GB, model); memory is what one machine can give to a model at 4 bits.
MEMORY = [
    (4, "Qwen3-1.7B"), (8, "Qwen3-4B"), (12, "Qwen3-8B"), (16, "Qwen3-14B"), (24, "Qwen3-30B-A3B"),
    (32, "Qwen3-32B"), (64, "Qwen3-Next-80B-A3B"), (128, "Qwen3.5-122B-A10B"), (192, "Qwen3-235B-A22B"),
]


def model_for(gigabytes):
    """The largest model of the table that suits this much memory; the tiny one below all."""
    fitting = [name for least, name in MEMORY if least <= gigabytes]
    return fitting[-1] if fitting else "Qwen3-0.6B"


def memory_answer(gigabytes):
    return f"With {gigabytes} GB, {model_for(gigabytes)} at 4 bits is a good choice."


MEMORY_ASKS = [
    "(which|what) model (suits|fits|is good for|should I use with|is best for|can I run with|runs in|goes with|do you recommend for|works with|fits in|is right for|fits into) {n} [of memory|of RAM|of VRAM|memory|RAM]",
    "I have {n} [of memory|of RAM|of VRAM|memory|RAM][,|.] (which model should I use|what can I run|which model fits|what should I run|which model do you recommend|what model|what fits|which one should I take)",
    "my (machine|computer|laptop|PC|GPU|server|graphics card|Mac) has {n} [of memory|of RAM|of VRAM|memory|RAM][,|.|;] (which model should I use|what can I run|which model fits|what should I run|which model is best|what model can I run)",
    "(what|which model) can I (run|use|load) (with|on|in) {n} [of memory|of RAM|of VRAM|memory|RAM]",
    "(recommend|suggest|name|choose|pick) [me] a model for {n} [of memory|of RAM|of VRAM|memory|RAM]",
    "(best|good|right|largest|biggest) model for {n} [of memory|of RAM|memory|RAM]",
    "{n} [of memory|of RAM|memory|RAM][,|:] (which model|what model|what can I run|which one)",
    "(what|which) is the (best|biggest|largest|right) model (for|that fits in|that runs in|with|on) {n} [of memory|of RAM|of VRAM|memory|RAM]",
    "(how about|what about|and with|and for|and) {n} [of memory|of RAM]",
    "is {n} [of memory|of RAM] enough[, and for what| for a good model]",
    "(which|what) (Qwen|Qwen3|qwen|LLM|language model) (fits|suits|for|runs with|should I take for|is for) {n}",
    "what (would|do) you (run|recommend|suggest|use|load) (on|with|for) [a machine with|a computer with|a laptop with|a GPU with] {n} [of memory|of RAM]",
]
NEED_ASKS = [
    "how much (memory|RAM|VRAM) (does|do|will) {m} (need|take|want|require|use)",
    "how much (memory|RAM|VRAM) do I need (for|to run) {m}",
    "(what|which machine|how many GB) (does|do) {m} need", "(what|how much) is needed (for|to run) {m}",
    "(memory|RAM) for {m}", "how many (gigabytes|GB) (does {m} need|for {m}|do I need for {m}|does {m} take)",
    "what machine do I need (for|to run) {m}", "I want to run {m}[,|.] how much (memory|RAM) do I need",
    "(will|does|can) {m} (fit|run) [and] in how much memory",
]
WHICH_MODEL = [
    "which model (should I use|do you recommend|is best|is good|should I run|should I take|should I load|fits me|is right for me)",
    "(recommend|suggest) [me] a model", "what model should I (use|run|load|take)", "which models (are good|do you recommend|should I try)",
    "{how} choose the right model", "what is the best model", "which model suits my (machine|computer|memory)",
]
WHICH_ANSWER = (
    "It depends on your memory: Qwen3-4B for 8 GB, Qwen3-14B for 16 GB, Qwen3-30B-A3B for 24 GB, "
    "Qwen3-32B for 32 GB. How much memory do you have?"
)
SIMPLE = {
    "hello": ("Hello! How can I help you with mesh-llm?", [
        "(hello|hi|hey|good morning|good evening|good afternoon|hi there|hello there|hey there|greetings|howdy|good day|hey you|hallo|hiya|yo|moin|welcome|morning|evening)[ mesh-llm| starter| friend| model| everyone| again| my friend| bot| assistant| computer]",
        "(hello|hi|hey)[,] (nice to meet you|are you there|anybody there|I am new here|is anyone there|good to see you)",
        "(dear|my dear|good|hello good|hi dear) (model|friend|assistant|bot|computer)", "(is anybody|are you|anyone) (there|here|awake|listening|home)", "I (say|wanted to say) (hello|hi)",
        "(just|I am just) (saying hi|saying hello|testing)", "(test|testing|ping|this is a test)",
    ]),
    "how": ("I am well, thank you. What would you like to know about mesh-llm?", [
        "how (are you|are you doing|do you do|is it going|are things|do you feel|have you been|is your day|are you feeling|goes it) [today|now|this morning|right now]",
        "(hi|hello|hey)[,] how (are you|is it going|are things|do you do|are you doing) [today|there]",
        "are you (well|ok|fine|all right|happy|doing well) [today]", "what's up", "how is life", "everything (ok|fine|all right|good)",
        "I hope you are (well|fine|ok)",
    ]),
    "thanks": ("You are welcome!", [
        "(thanks|thank you|thanks a lot|thank you very much|many thanks|thx|cheers|thanks so much|much appreciated|ty|thank you so much|a thousand thanks)[,] [that helped|that was helpful|great|for your help|for the help|that is all|it works|for that|for explaining|for the answer|you helped me|that works]",
        "(great|perfect|good|nice|cool|wonderful|super|ok|excellent|fine)[,] (thanks|thank you|that helped|that works|many thanks)",
        "(that helped|that was helpful|very helpful|you helped me a lot|that is what I needed|that is very kind|you are very kind|I am grateful|well done|good job|you are great|nice work|good answer)",
        "I (thank you|want to thank you|appreciate it|appreciate your help|would like to thank you)",
    ]),
    "bye": ("Goodbye!", [
        "(bye|goodbye|good bye|see you|see you later|bye bye|good night|farewell|so long|see you soon|until next time|take care|later|ciao|see you tomorrow|until tomorrow|have a nice day|have a good day)[ then| mesh-llm| friend| and thanks| now| for now]",
        "(I have to|I must|I need to|I am going to) (go|leave|stop here) [now|for today]", "(ok|okay|so|well|right)[,] (bye|goodbye|see you|good night) [for (now|tonight|this week)|then]", "(that is|that was) (all|it) [for today|for now|then]",
        "I am (leaving|off|done|going home) [now|for today]", "time to (say goodbye|go|leave|sleep)", "let us (stop|end) here", "I say goodbye",
    ]),
    "ok": ("Good. Is there anything else?", [
        "(ok|okay|good|fine|I see|alright|got it|understood|cool|nice|great|perfect|aha|right|I understand|makes sense|very good|wonderful|super|sure|yes|no|clear)",
        "(that makes sense|now I understand|I get it|that is good|sounds good|that is clear|good to know)",
    ]),
    "sorry": ("No problem.", ["(sorry|my mistake|I am sorry|excuse me|oops|pardon|I apologise)[, my mistake|, that was wrong]"]),
    "joke": ("Why did the model join the mesh? It wanted more memory.", [
        "(tell|give) me a joke", "(do you know|can you tell|say|make|tell) a joke [please]", "(make|can you make) me laugh", "a joke(|,) please", "be funny", "something funny",
    ]),
}
OPEN = [
    "(who|what) (was|is|wrote|painted|invented|discovered|built|won|founded|directed|sang) [the] {x}", "what is the (capital|population|height|colour|weight|price|history|area|language|president|king|name|age) of [the] {x}",
    "(when|where|why) (was|is|did|does|were|are) [the] {x} [born|built|made|begin|happen|so {y}|end]", "(write|compose|make) [me] (a|an) (poem|story|song|essay|letter|haiku|script|function|program|report|speech|recipe) [about|for|on|in] {x}",
    "how (many|much|old|far|tall|deep|hot|fast|long) (is|are|was|does|do) [the] {x} [live|have|cost|weigh]", "what is the (weather|time|temperature|news|date|forecast|score|stock price|traffic) [in|for|of|at] {X} [today|now|tomorrow|this week]",
    "(explain|describe|summarise|tell me about) (the|a|) {x} [and {y}|of {y}]", "what (do you think|is your opinion) (about|of) {x}", "(translate|spell|rhyme|define) {x} [into {y}|to {y}]",
    "(should I|can I|may I|must I) (buy|eat|sell|cook|drink|learn|visit|plant|paint) (a|the|some|) {x} [with {y}|today|tomorrow]", "(which|what) {x} (is|are) the (best|biggest|oldest|fastest|cheapest|smallest)",
    "why (is|are|do|does) [the] {x} {y}", "what (is|are) [a|an|the] {x}", "(who|what|where) is {X}", "(play|open|buy|call|order|book|show|find|send|turn on|switch off|cook|clean|paint) [me] (a|the|some|my|) {x} [for {X}|in {X}|to {X}|at {y}]",
    "(how|where) (do I|can I|to|does one) (cook|bake|fix|grow|buy|play|learn|draw|repair|clean|sing|paint|find|sell) (a|an|the|some|) {x} [with {y}|in {X}]", "do you (like|know|love|have|want|see|remember) (a|the|any|some|) {x}",
    "{x} {y}", "{x}", "{X}", "is (a|the|) {x} (a|more|better than|bigger than|as good as|the same as) {y}", "tell me a (story|fact|secret|tale) [about {x}]", "what happened (in {d}|to {X}|on {x}|yesterday|last week)",
    "in (which|what) (year|country|city|month) (was|is|did) [the] {x} [{y}|born|built|happen]", "(solve|compute|prove|integrate|simplify|factor) [the] {x}", "what comes after {x}", "who (is|was) the (first|last|best|richest|tallest) {x} [in {X}|of {X}]",
    "(what|how) does [the|a] {x} (mean|look like|taste like|work|do|eat|say|sound like)", "I (feel|am) {y} [today|about {x}]", "can you (see|hear|feel|drive|swim|fly|dance|cook|sing) [the] [{x}]", "give me (a|the|some) {x} (of|for|about) {y}",
    "name (a|three|five|some) {x}", "how (do|does|did|can) [the|a] {x} {y}", "what is {d} (times|divided by|to the power of) {d}", "what is the (square root|logarithm|sine) of {d}",
    "(my|the) {x} (is|hurts|does not work|broke|is {y})[, what should I do|]", "compare {x} (and|with) {y}", "what (should|could) I (eat|wear|read|watch|cook|do|play) (today|tonight|tomorrow|this weekend)", "(who|what) will win the {x}",
    "what's the (weather|news|time|date) [like] [today|in {X}|now|tomorrow]", "what (day|time|year|month) is it [in {X}|now|today]", "(will it|does it|is it going to) (rain|snow|be sunny|be cold) [in {X}] [today|tomorrow|this week]",
]
FIXED_OPEN = """what is the meaning of life|why is the sky blue|how do airplanes fly|what is love|is there a god|how old is the universe|who is the president|tell me something|how do I lose weight|what is python|write a hello world program in C|explain quantum physics|what is the speed of light|how many planets are there|what is the largest ocean|who was the first man on the moon|how do vaccines work|what should I cook for dinner|how do I tie a tie|what is a black hole|which team won the world cup|recommend a good book|what is the stock market doing|how do I learn the piano|what is machine learning|what is docker|how do I install windows|what is bitcoin|do you dream|are you alive|can you think|what is the population of earth|how do I fix my car|who wrote hamlet|what is photosynthesis|explain the theory of relativity|how many countries are in europe|what is the highest mountain|write a sorting algorithm|what is kubernetes|how do I boil an egg""".split("|")
COUNT_TO = ["count (everything|all|each number|on|) (from|starting with|beginning with) 1 (up to|to) {b}", "can I hear you count (up to|to) {b}", "(please|now) count [for me] (until|up to) {b}", "1 to {b}[, please|]", "count [up] (to|until|up to) {b}", "(can|could|would) you count (to|up to|until) {b}", "(please|) count from (1|one) (to|up to|until) {b}", "(list|say|write|name|print|give me) the numbers (from|) 1 (to|through|until) {b}", "count (till|for me to|to the number|all the way to|aloud to|slowly to) {b}", "(say|list|write) all numbers up to {b}", "start (at|from) 1 and (count|go) (to|up to) {b}", "I want you to count (to|up to) {b}", "let me (see|hear) you count to {b}"]
COUNT_FROM = ["(count|go) (up|on|) (from|beginning from) {a} (and stop at|until you reach|as far as|all the way to) {b}", "I want to (hear|see) the numbers from {a} to {b}", "{a} to {b}[, please|]", "count [up] from {a} (to|until|up to|through) {b}", "(can|could|would) you count from {a} (to|up to|until) {b}", "(list|say|write|name|print|give me) the numbers (from|between) {a} (to|and|until|through|up to) {b}", "start (at|with|from) {a} and count (to|up to|until) {b}", "count (starting|beginning) (at|with|from) {a} (to|up to|until) {b}", "begin (at|with) {a} and (go|count) [up] to {b}", "(all|the) numbers from {a} to {b}", "from {a} to {b}[,] (count|count please)"]
COUNT_DOWN = ["count (down|backwards|back|downwards) from {b} [to 1]", "(can|could) you count (down|backwards) from {b}", "(a|do a|give me a|start a) countdown from {b}", "(list|say) the numbers from {b} (down|back) to 1", "count from {b} (down|back|backwards) to 1"]
NAME_TELL = ["my name is {p}", "I am called {p}", "call me {p}", "(hi|hello|hey)[,] (I'm|my name is|this is) {p}", "my name's {p}", "the name is {p}", "you can call me {p}", "people call me {p}", "(hi|hello)[,] {p} here"]
NAME_ASK = ["what is my name", "who am I", "do you (know|remember) my name", "what am I called", "what did I say my name was", "(say|tell me) my name", "can you tell me my name", "which name did I (tell|give) you", "what's my name (again|)"]
ECHO = ["(say|repeat|write|echo|print|reply with|answer with|respond with|output|type|return) [just|only|exactly|the words|the word|this|after me|the text] {q}", "(say|repeat|write) after me: {q}", "(please|can you|could you|would you) (say|repeat|write|print|output|type|echo) {q}", "repeat (this|the following|these words|what I say|this text|exactly): {q}", "(reply|answer|respond) (only|just|with just|exactly|) with: {q}", "(the word|the words) {q}[,] (please repeat|repeat it|say it|repeat that)", "I (want|would like) you to say {q}"]
AGAIN = ["(say|repeat|tell me) (that|it) [once more|again|one more time]", "(again|once more|one more time|repeat|repeat please|come again|what did you say|pardon|say again)", "(can|could) you (repeat|say) (that|it) [again|once more|please]"]
NUMBER_WORDS = "zero one two three four five six seven eight nine ten eleven twelve".split()


def count_text(a, b):
    step = 1 if b >= a else -1
    return ", ".join(str(n) for n in range(a, b + step, step)) + "."


def spoken_number(n, rng):
    return NUMBER_WORDS[n] if 0 < n <= 12 and rng.random() < 0.3 else str(n)


def gigabytes_text(n, rng):
    unit = rng.choice(["{} GB", "{} GB", "{} GB", "{}GB", "{} gigabytes", "{} gb", "{}G", "{} gigs", "{} GiB"])
    return unit.format(n)


def memory(rng):
    common = rng.random() < 0.6
    n = rng.choice([2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256]) if common else rng.randint(1, 300)
    question = say(rng.choice(MEMORY_ASKS), rng)
    if rng.random() < 0.3:
        question = loosened(question, rng)
    return question.replace("{n}", gigabytes_text(n, rng)), memory_answer(n)


def memory_need(rng):
    least, name = rng.choice(MEMORY)
    spoken = name if rng.random() < 0.8 else name.replace("-", " ", 1)
    return say(rng.choice(NEED_ASKS), rng, m=spoken), f"{name} at 4 bits needs a machine with {least} GB."


def counting(rng):
    kind = rng.random()
    if kind < 0.4:
        b = rng.randint(2, 25)
        return say(rng.choice(COUNT_TO), rng, b=spoken_number(b, rng)), count_text(1, b)
    if kind < 0.8:
        a = rng.choice([rng.randint(0, 20), rng.randint(0, 95)])
        b = a + rng.randint(1, 14)
        return say(rng.choice(COUNT_FROM), rng, a=spoken_number(a, rng), b=spoken_number(b, rng)), count_text(a, b)
    b = rng.randint(2, 20)
    return say(rng.choice(COUNT_DOWN), rng, b=spoken_number(b, rng)), count_text(b, 1)


def small_sum(rng):
    a, b = rng.randint(0, 10), rng.randint(0, 10)
    if rng.random() < 0.6:
        ask = ["what is {a} (plus|+|and) {b}", "{a} (plus|+) {b}", "{a} + {b} = ?", "how much is {a} (plus|and|+) {b}", "add {a} and {b}", "(calculate|compute) {a} (plus|+) {b}", "the sum of {a} and {b}", "what's {a}+{b}"]
        return say(rng.choice(ask), rng, a=str(a), b=str(b)), f"{a} plus {b} is {a + b}."
    a, b = max(a, b), min(a, b)
    ask = ["what is {a} (minus|-) {b}", "{a} (minus|-) {b}", "how much is {a} (minus|-) {b}", "subtract {b} from {a}", "(calculate|compute) {a} (minus|-) {b}"]
    return say(rng.choice(ask), rng, a=str(a), b=str(b)), f"{a} minus {b} is {a - b}."


def echo(rng):
    text = phrase(rng, 1, rng.choice([3, 7, 14])) if rng.random() < 0.5 else phrases.anything(rng)
    shown = rng.choice(["{}", "{}", '"{}"', "'{}'"]).format(text)
    return say(rng.choice(ECHO), rng, q=shown), text


def lookup(rng):
    """A list of names and values in the question, one of which is asked for: practice in reading."""
    names = list({any_word(rng): 0 for _ in range(rng.randint(2, 6))})
    told = {n: rng.choice([lambda: str(rng.randint(0, 999)), lambda: any_word(rng), lambda: person(rng), lambda: phrase(rng, 1, 3), lambda: phrases.anything(rng)])() for n in names}
    joint = rng.choice(["{}: {}", "{} = {}", "{} is {}", "the {} is {}", '"{}": "{}"', "{}={}"])
    listed = rng.choice([", ", "; ", "\n", ", "]).join(joint.format(n, x) for n, x in told.items())
    wanted = rng.choice(names)
    ask = rng.choice(["{}?", "What is {}?", "what is the {}?", "Which value has {}?", "Tell me the {}.", "And {}?"]).format(wanted)
    if rng.random() < 0.3:
        return f"{ask} {listed}", told[wanted]
    return f"{listed}{rng.choice(['. ', ' - ', chr(10)])}{ask}", told[wanted]


def listing(rng):
    """A list of names with short values, and questions about it with their answers: values of names, and names of values."""
    names = list({rng.choice([any_word, any_word, person])(rng): 0 for _ in range(rng.randint(3, 9))})
    draw = rng.choice([lambda: str(rng.randint(0, 999)), lambda: any_word(rng), lambda: person(rng), lambda: phrase(rng, 2, 3)])
    told = {n: draw() for n in names}
    joint = rng.choice(["{}: {}", "{} = {}", "{} is {}", "the {} is {}", '"{}": "{}"', "{}={}", "{} has {}"])
    listed = rng.choice([", ", "; ", "\n"]).join(joint.format(n, x) for n, x in told.items())
    asks = [(rng.choice(["{}?", "What is {}?", "what is the {}?", "Which value has {}?", "Tell me the {}.", "And {}?", "{}, please"]).format(n), x) for n, x in told.items()]
    back = {x: n for n, x in told.items()}
    asks += [(rng.choice(["Who has {}?", "Which one is {}?", "What has the value {}?", "Which is {}?"]).format(x), n) for x, n in back.items() if rng.random() < 0.4 and len(back) == len(told)]
    rng.shuffle(asks)
    return listed, asks


def unknown(rng):
    if rng.random() < 0.06:
        return rng.choice(FIXED_OPEN), DONT_KNOW

    def word():
        return rng.choice(WORDS) if rng.random() < 0.65 else made_up_word(rng)

    def thing():
        return " ".join(word() for _ in range(rng.choice([1, 1, 1, 2, 2, 3])))

    proper = " ".join(person(rng) if rng.random() < 0.5 else made_up_word(rng).capitalize() for _ in range(rng.choice([1, 1, 2])))
    question = say(rng.choice(OPEN), rng, x=thing(), y=word(), X=proper, d=str(rng.randint(3, 2000)))
    return question, DONT_KNOW


def simple(rng):
    answer, patterns = SIMPLE[rng.choice(["hello", "hello", "how", "thanks", "thanks", "bye", "bye", "ok", "sorry", "joke"])]
    return say(rng.choice(patterns), rng), answer
