"""Training text on its way to the network: chats of similar length side by side, padded.

A file of text (`generate.py`) holds, for each token, its id, whether it is learned
(`LEARNED`, `READ` or `IGNORED`) and its branch. Tokens of branch 0 see all before them; those of another
branch see branch 0 and their own. So many questions share one prompt full of tools, each as if it were the first.
"""
from dataclasses import dataclass

import numpy as np
import torch

READ, LEARNED, IGNORED = 0, 1, 2
MICRO_TOKENS = 4096  # padded tokens of one forward pass: large enough for the matrix units, small enough for the cache
WINDOW_CHATS = 3000  # chats sorted by length at a time, so that padding stays small
HIDDEN = -1e4
SAID = 1.0  # loss weight of a learned token
READ_SHARE, READ_WEIGHT = 0.25, 0.25  # of the tokens that the model only reads, so many count, with this weight


@dataclass
class Batch:
    """What one forward and backward pass needs; `[rows, time]` but for the mask."""

    ids: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    places: torch.Tensor
    mask: torch.Tensor


def room(length):
    """`length` rounded up to one of few sizes: the matrix kernels are compiled anew for each size."""
    step = 16 if length <= 128 else 32 if length <= 512 else 64
    return -(-int(length) // step) * step + 1


def lists(lengths, rng):
    """Lists of chat numbers; each list, padded to `room` of its longest, holds at most MICRO_TOKENS tokens."""
    order, out = rng.permutation(len(lengths)), []
    for begin in range(0, len(order), WINDOW_CHATS):
        window = order[begin:begin + WINDOW_CHATS]
        window = window[np.argsort(lengths[window], kind="stable")]
        found, batch = [], []
        for chat in window:
            if batch and (len(batch) + 1) * room(lengths[chat]) > MICRO_TOKENS:
                found.append(batch)
                batch = []
            batch.append(chat)
        found.append(batch)
        out += [found[i] for i in rng.permutation(len(found))]
    return out


def vocabulary_size(tokenizer):
    """The number of tokens, rounded up to what quantisation wants."""
    return -(-tokenizer.get_vocab_size() // 32) * 32


def places_of(branch):
    """Position of each token of one chat: every branch goes on where branch 0 ends."""
    places = np.arange(len(branch))
    shared = int((branch == 0).sum())
    begins = np.flatnonzero(np.diff(branch, prepend=0))
    for a, b in zip(begins, [*begins[1:], len(branch)]):
        places[a:b] = shared + np.arange(b - a)
    return places


class Data:
    """Chats of several files, in the order in which they are learned."""

    def __init__(self, paths, seed):
        files = [dict(np.load(p)) for p in paths]
        self.ids, self.mask, self.branch, self.lengths = (np.concatenate([f[k] for f in files]) for k in ("ids", "mask", "branch", "lengths"))
        self.starts = np.concatenate(([0], np.cumsum(self.lengths)))
        read = np.random.default_rng(seed).random(len(self.ids), np.float32) < READ_SHARE
        self.weights = np.where(self.mask == LEARNED, np.float32(SAID), np.float32(READ_WEIGHT) * (read & (self.mask == READ)))
        self.weights[self.starts[:-1]] = 0.0  # nothing comes before these
        ends = np.flatnonzero(np.diff(self.branch))
        self.weights[ends[self.branch[ends] != 0] + 1] = 0.0  # no branch follows another
        self.batches, before = [], 0
        for number, f in enumerate(files):
            found = lists(f["lengths"], np.random.default_rng([seed, number]))
            self.batches += [[before + c for c in b] for b in found]
            before += len(f["lengths"])

    def span(self, chat):
        return slice(self.starts[chat], self.starts[chat + 1])

    def tokens_of(self, chats):
        return int(self.lengths[chats].sum())

    def weight_of(self, chats):
        return sum(float(self.weights[self.span(c)].sum()) for c in chats)

    def padded(self, chats):
        """The chats side by side, padded with rows and columns that count for nothing."""
        length = room(max(self.lengths[c] for c in chats))
        rows = max(1, MICRO_TOKENS // length)
        ids, places, branch = (np.zeros((rows, length), np.int64) for _ in range(3))
        weights = np.zeros((rows, length), np.float32)
        for row, chat in enumerate(chats):
            n = int(self.lengths[chat])
            ids[row, :n], branch[row, :n] = self.ids[self.span(chat)], self.branch[self.span(chat)]
            weights[row, :n], places[row, :n] = self.weights[self.span(chat)], places_of(self.branch[self.span(chat)])
        ids, weights = torch.from_numpy(ids), torch.from_numpy(weights)
        return Batch(
            ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), weights[:, 1:].contiguous(),
            torch.from_numpy(places[:, :-1]).contiguous(), mask_of(torch.from_numpy(branch[:, :-1])),
        )


def mask_of(branch):
    """What is added to the attention scores of tokens of these branches."""
    time = branch.shape[1]
    hidden = torch.ones(time, time, dtype=torch.bool).triu(1)
    if branch.any():
        seen, looking = branch[:, None, None, :], branch[:, None, :, None]
        hidden = hidden | ((seen != 0) & (seen != looking))
    return torch.zeros(hidden.shape, dtype=torch.bfloat16).masked_fill_(hidden, HIDDEN)
