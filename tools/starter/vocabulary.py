"""The starter model's byte-level BPE vocabulary, readable by llama.cpp as `gpt2` / `qwen2`.

Merges never cross the border between a space (or a quote, or an underscore) and a word, so a word has
the same pieces in a question and inside JSON: copying an argument is then plain repetition. Only after
all of these come merges that fuse a space with a frequent whole word, to keep answers short in tokens.
"""
import json
import re
from collections import Counter

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
VISIBLE = [
    "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>",
]
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


def build(texts, spoken, pieces=2000, spaced=1000):
    """Train on `texts` (everything) and `spoken` (plain sentences); returns a `Tokenizer`."""
    tokens, merges = train_pieces(texts, pieces)
    known = set(tokens)
    words = Counter(w for t in spoken for w in re.findall(r" ([A-Za-z]+)", t))
    ranked = sorted(words.items(), key=lambda kv: (-kv[1], kv[0]))
    for word, _ in [kv for kv in ranked if kv[0] in known][:spaced]:
        merges.append(("Ġ", word))
        tokens.append("Ġ" + word)
    return assemble(tokens, merges)


def assemble(tokens, merges):
    """A `Tokenizer` of these tokens and merges, special tokens after them."""
    vocab = {t: i for i, t in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = splitter(QWEN2)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in CONTROL])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in VISIBLE])
    return tokenizer
