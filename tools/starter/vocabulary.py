"""The starter model's byte-level BPE vocabulary, readable by llama.cpp as `gpt2` / `qwen2`.

Merges never cross the border between a space (or a quote, or an underscore) and a word, so a word has
the same pieces in a question and inside JSON. Only after all of these come merges that fuse a space with the
first piece of a word: each such piece has a twin (`twins`), which the network begins with almost the same
embedding for, so that copying still is plain repetition. What JSON wraps around tools and calls is in few
long tokens (`FRAMES`), so that a prompt full of tools is short.
"""
import json
import re

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
VISIBLE = [
    "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>",
]
NEXT, NEEDED = '}, "', '}}, "required": ["'
KINDS = [f'": {{"type": "{kind}"' for kind in ("string", "integer", "number", "boolean")]
FRAMES = [  # none may overlap another in real text but by lying within it: llama.cpp takes the longest first, other programs the leftmost
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n",
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:\n"
    '<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>',
    '{"type": "function", "function": {"name": "', '", "description": "',
    '", "parameters": {"type": "object", "properties": {"', '", "parameters": {"type": "object", "properties": {',
    *(kind + end for kind in KINDS for end in (', "description": "', "}", "}" + NEXT[1:], "}" + NEEDED[1:], ', "enum": ["')),
    '"' + NEXT, '"' + NEEDED, '"]}}}', '"], "additionalProperties": false}}}', '"' + "}}}}",
    '": "', '", "', '\n{"name": "', '", "arguments": {"', '"}}',
]
VISIBLE += FRAMES
SPACE = "Ġ"  # as byte-level vocabularies write it
PUNCTUATION = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CONTRACTION = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
QWEN2 = CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|" + PUNCTUATION
BARE_WORDS = CONTRACTION + r"|\p{L}+|\p{N}|" + PUNCTUATION


def splitter(pattern):
    """Pre-tokenizer that cuts at `pattern` and maps bytes to printable characters."""
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])


def train_pieces(texts, size):
    """`(tokens, merges)` of a BPE with `size` tokens that never merges a space with a word."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = splitter(BARE_WORDS)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
        min_frequency=5,
    )
    tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = [t for t, _ in sorted(model["vocab"].items(), key=lambda kv: kv[1])]
    return tokens, [tuple(m) for m in model["merges"]]


def build(texts, pieces=2000):
    """Train on `texts`; returns a `Tokenizer`."""
    tokens, merges = train_pieces(texts, pieces)
    for piece in [t for t in tokens if re.fullmatch("[A-Za-z]+", t)]:
        merges.append((SPACE, piece))
        tokens.append(SPACE + piece)
    return assemble(tokens, merges)


def twins(tokenizer):
    """Numbers of the tokens that begin with a space, and of the same pieces without it."""
    known = tokenizer.get_vocab()
    return [(number, known[token[1:]]) for token, number in sorted(known.items()) if token.startswith(SPACE) and token[1:] in known]


def assemble(tokens, merges):
    """A `Tokenizer` of these tokens and merges, special tokens after them."""
    vocab = {t: i for i, t in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = splitter(QWEN2)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in CONTROL])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in VISIBLE])
    return tokenizer
