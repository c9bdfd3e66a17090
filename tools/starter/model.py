"""The starter model's network: a Qwen3-shaped decoder, written for training on a CPU.

Owns the shape (`Shape`) and the forward pass. Knows nothing of text, files or optimisers.
The names of the parameters follow what `convert.py` expects.
"""
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import nn

import copying

QUERIES_LEAST = 160
EMBED_SPREAD = 0.08  # large enough for clear answers, and to be seen beside what the blocks add


@dataclass
class Shape:
    """Sizes of the network. `width` and `head_width` are multiples of 32, so that Q8_0 fits."""

    vocab: int = 2816
    width: int = 256
    layers: int = 6
    heads: int = 4
    kv_heads: int = 4
    head_width: int = 64
    feed_forward: int = 512
    context: int = 4096
    rope_base: float = 10000.0
    norm_eps: float = 1e-6

    def as_dict(self):
        return asdict(self)


def fused(function):
    """One loop instead of one per operation, for tensors of any size. Needs a C++ compiler."""
    return torch.compile(function, dynamic=True)


@fused
def normalised(x, weight, eps):
    """`x` over the root mean square of its last axis, times `weight`, in the type of `x`."""
    wide = x.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps) * weight).to(x.dtype)


class RmsNorm(nn.Module):
    """Scale by the root mean square over the last axis, then by a learned weight."""

    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x):
        return normalised(x, self.weight, self.eps)


def rope_tables(shape, length):
    """Cosine and sine tables, each `[length, head_width / 2]`, for the split-half rotation."""
    half = shape.head_width // 2
    freq = shape.rope_base ** (-torch.arange(half, dtype=torch.float32) / half)
    angle = torch.arange(length, dtype=torch.float32)[:, None] * freq[None, :]
    return angle.cos(), angle.sin()


@fused
def rotate(x, cos, sin):
    """Rotate `x` of `[batch, time, heads, head_width]`; the halves form the pairs (NEOX order)."""
    a, b = x.chunk(2, dim=-1)
    cos = cos[:, :, None, :].to(x.dtype)
    sin = sin[:, :, None, :].to(x.dtype)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


def attend(q, k, v, mask):
    """Causal attention over `[batch, heads, time, head_width]`, some queries at a time, with the keys up to them.

    Written out: for short sequences PyTorch's fused kernel spends several times longer in its backward pass.
    """
    q, out, time = q * q.shape[-1] ** -0.5, [], q.shape[2]
    pieces = max(1, time // QUERIES_LEAST)
    ends = [time * (i + 1) // pieces for i in range(pieces)]
    for begin, end in zip([0, *ends], ends):
        scores = q[:, :, begin:end] @ k[:, :, :end].transpose(-1, -2) + mask[..., begin:end, :end]
        out.append(scores.softmax(dim=-1) @ v[:, :, :end])
    return torch.cat(out, dim=2)


class Block(nn.Module):
    """Attention with normalised queries and keys, then a gated feed-forward part."""

    def __init__(self, s):
        super().__init__()
        self.shape = s
        self.attn_norm = RmsNorm(s.width, s.norm_eps)
        self.q = nn.Linear(s.width, s.heads * s.head_width, bias=False)
        self.k = nn.Linear(s.width, s.kv_heads * s.head_width, bias=False)
        self.v = nn.Linear(s.width, s.kv_heads * s.head_width, bias=False)
        self.o = nn.Linear(s.heads * s.head_width, s.width, bias=False)
        self.q_norm = RmsNorm(s.head_width, s.norm_eps)
        self.k_norm = RmsNorm(s.head_width, s.norm_eps)
        self.ffn_norm = RmsNorm(s.width, s.norm_eps)
        self.gate = nn.Linear(s.width, s.feed_forward, bias=False)
        self.up = nn.Linear(s.width, s.feed_forward, bias=False)
        self.down = nn.Linear(s.feed_forward, s.width, bias=False)

    def forward(self, x, cos, sin, mask):
        s = self.shape
        batch, time, _ = x.shape
        h = self.attn_norm(x)
        q = self.q_norm(self.q(h).view(batch, time, s.heads, s.head_width))
        k = self.k_norm(self.k(h).view(batch, time, s.kv_heads, s.head_width))
        v = self.v(h).view(batch, time, s.kv_heads, s.head_width)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if s.heads != s.kv_heads:
            k, v = (t.repeat_interleave(s.heads // s.kv_heads, dim=2) for t in (k, v))
        a = attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), mask)
        x = x + self.o(a.transpose(1, 2).reshape(batch, time, -1))
        h = self.ffn_norm(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


@fused
def surprise(logits, targets):
    """Cross entropy in nats for each row of `logits` against its target."""
    wide = logits.float()
    return wide.logsumexp(-1) - wide.gather(1, targets[:, None]).squeeze(1)


class Starter(nn.Module):
    """The whole network; the output head is the transposed embedding table. A new one knows nothing but how to copy."""

    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        self.embed = nn.Embedding(shape.vocab, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = RmsNorm(shape.width, shape.norm_eps)
        cos, sin = rope_tables(shape, shape.context)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        for name, p in self.named_parameters():
            if name.endswith(("o.weight", "down.weight")):
                nn.init.zeros_(p)
            elif name.endswith(("q_norm.weight", "k_norm.weight")):  # sharper attention
                nn.init.constant_(p, 1.25)
            elif p.dim() == 2:
                nn.init.normal_(p, std=0.02)
        copying.prepare(self, EMBED_SPREAD)

    def hidden(self, tokens, places, mask):
        """Token ids `[batch, time]` at `places` of the same size to normalised hidden states `[batch, time, width]`.

        `mask` is added to the attention scores: 0 where a token may look, very negative elsewhere.
        """
        cos, sin = self.cos[places], self.sin[places]
        x = self.embed(tokens)
        if torch.is_autocast_enabled("cpu"):
            x = x.to(torch.bfloat16)
        for block in self.blocks:
            x = block(x, cos, sin, mask)
        return self.norm(x)

    def logits(self, hidden):
        """Hidden states to logits over the vocabulary."""
        return F.linear(hidden, self.embed.weight)
