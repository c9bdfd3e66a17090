"""Lets a fresh network copy from the first step on, instead of finding out how in millions of tokens.

Two heads of the first block look at the token before, whatever it is: all embeddings share one direction,
and the rotation by position does the rest. They write down which token that was. Two heads of the second
block look for a place that the same token comes before, and say what stands there: an induction head.
Training is free to change all of it.
"""
import torch

HEADS = 2
NEAR_PAIRS = 6  # the fast pairs of the rotation tell neighbours apart
FAR_PAIR = 18  # from here on the pairs turn so slowly that they match over hundreds of tokens
LIKENESS = 0.9  # of twins
WRITTEN, COPIED = 0.3, 0.8  # how loudly the heads speak


def directions(count, width, others):
    """`count` random orthonormal rows that are at right angles to all rows of `others`."""
    rows = torch.linalg.qr(torch.cat([others, torch.randn(count, width)]).T).Q.T
    return rows[len(others):]


@torch.no_grad()
def prepare(model, spread, twins):
    """Set the embeddings, spread by `spread` around a common vector, and the heads of the first two blocks.

    The tokens of each pair of `twins` begin alike, so that a word is found and said again whether a space comes before it or not.
    """
    s, first, second = model.shape, model.blocks[0], model.blocks[1]
    half, width = s.head_width // 2, s.width
    common = torch.nn.functional.normalize(torch.randn(1, width), dim=1)
    rows = torch.randn(s.vocab, width)
    if twins:
        spaced, bare = torch.tensor(twins).T
        rows[spaced] = LIKENESS * rows[bare] + (1 - LIKENESS ** 2) ** 0.5 * rows[spaced]
    model.embed.weight.copy_(spread * (rows + common * width ** 0.5))
    far = torch.cat([torch.arange(FAR_PAIR, half), torch.arange(FAR_PAIR, half) + half])
    turn = s.rope_base ** (-torch.arange(NEAR_PAIRS) / half)
    taken = common
    for head in range(HEADS):
        at = slice(head * s.head_width, (head + 1) * s.head_width)
        read, written = directions(len(far), width, common), directions(len(far), width, taken)
        taken = torch.cat([taken, written])
        before_q, before_k = torch.zeros(s.head_width), torch.zeros(s.head_width)
        before_k[:NEAR_PAIRS] = 1
        before_q[:NEAR_PAIRS], before_q[half:half + NEAR_PAIRS] = turn.cos(), -turn.sin()
        first.q.weight[at], first.k.weight[at] = before_q[:, None] * common, before_k[:, None] * common
        for matrix, rows in ((first.v.weight, read), (second.q.weight, read), (second.k.weight, written), (first.o.weight.T, WRITTEN * written)):
            matrix[at] = 0
            matrix[at][far] = rows
    for head in range(HEADS):
        at = slice(head * s.head_width, (head + 1) * s.head_width)
        copied = directions(s.head_width, width, taken)
        second.v.weight[at] = copied
        second.o.weight.T[at] = COPIED * copied
