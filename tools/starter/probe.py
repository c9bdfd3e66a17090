"""Counts which answers of generated chats a checkpoint gets right, so as to tell underfitting from overfitting.

    python probe.py --checkpoint build/last.pt --data build/fresh.npz --vocabulary build/vocabulary.json

The data is text of `generate.py` with a seed that training did not use. An answer is right when each of its
tokens is the likeliest after the right ones before it. A wrong call is wrong in its name or in its arguments.
"""
import argparse
from collections import Counter
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

import batches
from model import Shape, Starter


def answers(data, chat, guesses):
    """`(said, guessed)` token ids of each answer of one chat; `guesses[i]` follows token `i`."""
    span = data.span(chat)
    ids, mask, branch = (x[span].astype(int) for x in (data.ids, data.mask, data.branch))
    for (learned, _), places in groupby(range(1, len(ids)), key=lambda i: (mask[i], branch[i])):
        if learned == batches.LEARNED:
            places = np.array(list(places))
            yield ids[places], guesses[places - 1]


def verdict(said, guessed, tokenizer):
    """What kind of answer it is, and how it is wrong, if it is."""
    kind = "call" if tokenizer.decode(list(said), skip_special_tokens=False).startswith("<tool_call>") else "sentence"
    wrong = np.flatnonzero(said != guessed)
    if not len(wrong):
        return kind, "right"
    if kind == "sentence":
        return kind, "wrong"
    begin = tokenizer.decode(list(said[:wrong[0] + 1]))
    return kind, "wrong arguments" if '"arguments"' in begin else "wrong name"


def main():
    arg = argparse.ArgumentParser(description=__doc__)
    arg.add_argument("--checkpoint", type=Path, required=True)
    arg.add_argument("--data", type=Path, required=True)
    arg.add_argument("--vocabulary", type=Path, required=True)
    arg.add_argument("--lists", type=int, default=40, help="so many lists of chats")
    args = arg.parse_args()
    torch.set_num_threads(1)
    saved = torch.load(args.checkpoint, weights_only=True)
    model = Starter(Shape(**saved["shape"]))
    model.load_state_dict(saved["model"])
    tokenizer, data, found = Tokenizer.from_file(str(args.vocabulary)), batches.Data([args.data], 7), Counter()
    for chats in data.batches[:args.lists]:
        batch = data.padded(chats)
        with torch.no_grad():
            guesses = model.logits(model.hidden(batch.ids, batch.places, batch.mask)).argmax(-1).numpy()
        for row, chat in enumerate(chats):
            found.update(verdict(*pair, tokenizer) for pair in answers(data, chat, guesses[row]))
    for kind in ("call", "sentence"):
        of = sum(n for (k, _), n in found.items() if k == kind)
        print(f"{kind}s: {of}", *(f"{how} {n / of:.1%}" for (k, how), n in sorted(found.items()) if k == kind), sep=", ")


if __name__ == "__main__":
    main()
