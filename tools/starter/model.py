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

    vocab: int = 3808
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


FAST_BF16 = torch.cpu._is_avx512_bf16_supported()  # elsewhere it is emulated, and ten times slower than float32
KIND = torch.bfloat16 if FAST_BF16 else torch.float32


def fused(function):
    """One loop instead of one per operation, for tensors of any size. Needs a C++ compiler."""
    return torch.compile(function, dynamic=True)


def normalised(x, weight, eps):
    """`x` over the root mean square of its last axis, times `weight`, in the type of `x`."""
    wide = x.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps) * weight).to(x.dtype)


fused_norm = fused(normalised)


class RmsNorm(nn.Module):
    """The learned weight of a scaling by the root mean square over the last axis."""

    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))


def rope_tables(shape, length):
    """Cosine and sine tables, each `[length, head_width / 2]`, for the split-half rotation."""
    half = shape.head_width // 2
    freq = shape.rope_base ** (-torch.arange(half, dtype=torch.float32) / half)
    angle = torch.arange(length, dtype=torch.float32)[:, None] * freq[None, :]
    return angle.cos(), angle.sin()


def rotate(x, cos, sin):
    """Rotate `x` of `[batch, time, heads, head_width]`; the halves form the pairs (NEOX order)."""
    a, b = x.chunk(2, dim=-1)
    cos, sin = cos[:, :, None, :], sin[:, :, None, :]
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


@fused
def projected(x, norm, matrices, q_norm, k_norm, cos, sin, eps):
    """Queries (scaled), keys and values of `x`, each `[batch, heads, time, head_width]`, normalised and rotated."""
    head, (batch, time, _) = q_norm.shape[0], x.shape
    both = F.linear(normalised(x, norm, eps), torch.cat(matrices).to(x.dtype)).view(batch, time, -1, head)
    q, k, v = both.split([len(m) // head for m in matrices], dim=2)
    q = rotate(normalised(q.float(), q_norm, eps), cos, sin) * head ** -0.5
    k = rotate(normalised(k.float(), k_norm, eps), cos, sin)
    return tuple(t.to(x.dtype).transpose(1, 2).contiguous() for t in (q, k, v))


@fused
def completed(x, looked, o, norm, gate_up, down, eps):
    """What follows the attention: its result `[batch, heads, time, head_width]` added to `x`, then the gated feed-forward part."""
    x = x + F.linear(looked.transpose(1, 2).flatten(2), o.to(x.dtype))
    gate, up = F.linear(normalised(x, norm, eps), torch.cat(gate_up).to(x.dtype)).chunk(2, dim=-1)
    return x + F.linear(F.silu(gate) * up, down.to(x.dtype))


@fused
def shares(scores, mask):
    return (scores.float() + mask).softmax(dim=-1).to(scores.dtype)


@fused
def through_shares(grad, given):
    """Gradient of the scores from that of their softmax `given`."""
    grad, wide = grad.float(), given.float()
    return (wide * (grad - (grad * wide).sum(-1, keepdim=True))).to(given.dtype)


def pieces(time):
    """Begin and end of some queries at a time, which look at the keys up to that end only."""
    count = max(1, time // QUERIES_LEAST)
    ends = [time * (i + 1) // count for i in range(count)]
    return list(zip([0, *ends], ends))


class Attend(torch.autograd.Function):
    """Causal attention over `[batch, heads, time, head_width]`.

    Written out: for short sequences PyTorch's fused kernel spends several times longer in its backward pass,
    and its automatic gradients fill a full-sized tensor for every piece.
    """

    @staticmethod
    def forward(ctx, q, k, v, mask):
        out, kept = torch.empty_like(q), []
        for begin, end in pieces(q.shape[2]):
            kept.append(shares(q[:, :, begin:end] @ k[:, :, :end].mT, mask[..., begin:end, :end]))
            out[:, :, begin:end] = kept[-1] @ v[:, :, :end]
        ctx.save_for_backward(q, k, v, *kept)
        return out

    @staticmethod
    def backward(ctx, grad):
        q, k, v, *kept = ctx.saved_tensors
        grad = grad.contiguous()
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for (begin, end), given in zip(pieces(q.shape[2]), kept):
            part = grad[:, :, begin:end]
            dv[:, :, :end] += given.mT @ part
            scores = through_shares(part @ v[:, :, :end].mT, given)
            dq[:, :, begin:end] = scores @ k[:, :, :end]
            dk[:, :, :end] += scores.mT @ q[:, :, begin:end]
        return dq, dk, dv, None


class Block(nn.Module):
    """Attention with normalised queries and keys, then a gated feed-forward part."""

    def __init__(self, s):
        super().__init__()
        self.eps = s.norm_eps
        self.attn_norm = RmsNorm(s.width)
        self.q = nn.Linear(s.width, s.heads * s.head_width, bias=False)
        self.k = nn.Linear(s.width, s.kv_heads * s.head_width, bias=False)
        self.v = nn.Linear(s.width, s.kv_heads * s.head_width, bias=False)
        self.o = nn.Linear(s.heads * s.head_width, s.width, bias=False)
        self.q_norm = RmsNorm(s.head_width)
        self.k_norm = RmsNorm(s.head_width)
        self.ffn_norm = RmsNorm(s.width)
        self.gate = nn.Linear(s.width, s.feed_forward, bias=False)
        self.up = nn.Linear(s.width, s.feed_forward, bias=False)
        self.down = nn.Linear(s.feed_forward, s.width, bias=False)

    def forward(self, x, cos, sin, mask):
        matrices = [self.q.weight, self.k.weight, self.v.weight]
        q, k, v = projected(x, self.attn_norm.weight, matrices, self.q_norm.weight, self.k_norm.weight, cos, sin, self.eps)
        if q.shape[1] != k.shape[1]:
            k, v = (t.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for t in (k, v))
        looked = Attend.apply(q, k, v, mask)
        return completed(x, looked, self.o.weight, self.ffn_norm.weight, [self.gate.weight, self.up.weight], self.down.weight, self.eps)


@fused
def surprise(logits, targets):
    """Cross entropy in nats for each row of `logits` against its target."""
    wide = logits.float()
    return wide.logsumexp(-1) - wide.gather(1, targets[:, None]).squeeze(1)


class Starter(nn.Module):
    """The whole network; the output head is the transposed embedding table. A new one knows nothing but how to copy."""

    def __init__(self, shape, twins=()):
        super().__init__()
        self.shape = shape
        self.embed = nn.Embedding(shape.vocab, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = RmsNorm(shape.width)
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
        copying.prepare(self, EMBED_SPREAD, twins)

    def hidden(self, tokens, places, mask):
        """Token ids `[batch, time]` at `places` of the same size to normalised hidden states `[batch, time, width]`.

        `mask` is added to the attention scores: 0 where a token may look, very negative elsewhere.
        """
        cos, sin = self.cos[places], self.sin[places]
        x = self.embed(tokens).to(KIND)
        for block in self.blocks:
            x = block(x, cos, sin, mask)
        return fused_norm(x, self.norm.weight, self.shape.norm_eps)

    def logits(self, hidden):
        """Hidden states to logits over the vocabulary."""
        return F.linear(hidden, self.embed.weight.to(hidden.dtype))
