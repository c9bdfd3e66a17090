"""Trains the starter model on the CPU in bfloat16.

    python train.py --data build/phase1.npz --out build/phase1.pt [--start build/other.pt] [--rate 1.0]

One pass over the data. The learning rate follows the tokens seen, not the clock, so a second run takes
the same steps. Matrices are trained with Muon (momentum, then an approximate orthogonalisation: Newton's
iteration of fifth degree, coefficients 3.4445, -4.775, 2.0315 of its authors), all else with AdamW.
"""
import argparse
import time
from pathlib import Path

import numpy as np
import torch

from model import Shape, Starter, surprise

MICRO_TOKENS = 4096  # padded tokens of one forward pass: large enough for the matrix units, small enough for the cache
MICRO_PER_STEP = 4
WORKERS = 2  # processes, one for each core
BARRIER_SECONDS = 600  # a worker waits so long for the other: a step takes seconds
WINDOW_CHATS = 3000  # chats sorted by length at a time, so that padding stays small
PROMPT_WEIGHT = 0.1  # loss weight of tokens that the model reads but never says
MUON_RATE, ADAM_RATE = 0.02, 0.003
CHECKPOINT_SECONDS = 180


def room(length):
    """`length` rounded up to one of few sizes: the matrix kernels are compiled anew for each size."""
    step = 16 if length <= 128 else 32 if length <= 512 else 128
    return -(-int(length) // step) * step + 1


def micro_batches(lengths, seed):
    """Lists of chat numbers; each list, padded to `room` of its longest, holds at most MICRO_TOKENS tokens."""
    rng = np.random.default_rng(seed)
    order, out = rng.permutation(len(lengths)), []
    for begin in range(0, len(order), WINDOW_CHATS):
        window = order[begin:begin + WINDOW_CHATS]
        window = window[np.argsort(lengths[window], kind="stable")]
        batches, batch = [], []
        for chat in window:
            if batch and (len(batch) + 1) * room(lengths[chat]) > MICRO_TOKENS:
                batches.append(batch)
                batch = []
            batch.append(chat)
        batches.append(batch)
        out += [batches[i] for i in rng.permutation(len(batches))]
    return out


def orthogonal(update, rounds=5):
    """Nearest (approximately) semi-orthogonal matrices to `update`, `[matrices, rows, columns]`."""
    x = update.bfloat16()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(rounds):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.775 * gram + 2.0315 * gram @ gram) @ x
    return (x.mT if tall else x).float()


class Muon:
    """Momentum with orthogonalised updates for matrices, grouped by size."""

    def __init__(self, parameters, momentum=0.95, decay=0.01):
        self.groups, self.momentum, self.decay = {}, momentum, decay
        for p in parameters:
            self.groups.setdefault(tuple(p.shape), []).append(p)
        self.buffers = {k: torch.zeros(len(v), *k) for k, v in self.groups.items()}

    @torch.no_grad()
    def step(self, rate):
        for size, group in self.groups.items():
            grad = torch.stack([p.grad for p in group])
            buffer = self.buffers[size].lerp_(grad, 1 - self.momentum)
            update = orthogonal(grad.lerp(buffer, self.momentum)) * max(1, size[0] / size[1]) ** 0.5
            for p, u in zip(group, update):
                p.mul_(1 - rate * self.decay).add_(u, alpha=-rate)


def rate_at(done):
    """Share of the full rate after the share `done` of the tokens: short rise, plateau, line to zero."""
    return min(1.0, done / 0.02 + 0.02, max(0.0, (1 - done) / 0.65))


def loss_of(model, ids, targets, weights):
    with torch.autocast("cpu", torch.bfloat16):
        logits = model.logits(model.hidden(ids).flatten(0, 1))
    losses = surprise(logits, targets.flatten())
    return (losses * weights.flatten()).sum(), losses


def padded(batch, data, starts):
    """Token ids, next tokens and loss weights of a list of chats."""
    length = room(max(data["lengths"][c] for c in batch))
    rows = max(1, MICRO_TOKENS // length)
    ids = np.zeros((rows, length), np.int64)
    weight = np.zeros((rows, length), np.float32)
    for row, chat in enumerate(batch):
        a, n = starts[chat], int(data["lengths"][chat])
        ids[row, :n] = data["ids"][a:a + n]
        weight[row, :n] = np.where(data["mask"][a:a + n] == 1, 1.0, PROMPT_WEIGHT)
    ids, weight = torch.from_numpy(ids), torch.from_numpy(weight)
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), weight[:, 1:].contiguous()


class Sum:
    """Adds gradients over the workers through shared memory, in a fixed order, so that runs agree.

    One thread per process: threads inside one process wait for each other at every operation, which
    costs most of the speed as soon as anything else uses the machine.
    """

    def __init__(self, size):
        self.slots = torch.zeros(2, WORKERS, size).share_memory_()
        self.barrier = torch.multiprocessing.get_context("spawn").Barrier(WORKERS)
        self.round = 0

    def __call__(self, rank, parameters):
        slots = self.slots[self.round % 2]  # two sets: a fast worker may be one step ahead
        self.round += 1
        slots[rank].copy_(torch.cat([p.grad.flatten() for p in parameters]))
        self.barrier.wait(BARRIER_SECONDS)
        total, at = slots.sum(0), 0
        for p in parameters:
            p.grad.copy_(total[at:at + p.numel()].view_as(p))
            at += p.numel()


def work(rank, args, shape, start, add):
    """One worker: its share of the micro batches, the same step as all others."""
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    data = dict(np.load(args.data))
    starts = np.concatenate(([0], np.cumsum(data["lengths"])))
    model = Starter(shape)
    if start:
        model.load_state_dict(start)
    matrices = [p for n, p in model.named_parameters() if p.dim() == 2 and "embed" not in n]
    rest = [p for n, p in model.named_parameters() if p.dim() == 1 or "embed" in n]
    muon = Muon(matrices)
    adam = torch.optim.AdamW(rest, lr=ADAM_RATE, betas=(0.9, 0.95), weight_decay=0.0)
    batches = micro_batches(data["lengths"], args.seed)
    batches = batches[:len(batches) // MICRO_PER_STEP * MICRO_PER_STEP]
    total, seen, log = sum(int(data["lengths"][b].sum()) for b in batches), 0, []
    begun = saved_at = time.time()
    if rank == 0:
        print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, {total} tokens, {len(batches)} passes", flush=True)

    def save():
        torch.save({"model": model.state_dict(), "shape": shape.as_dict(), "seconds": time.time() - begun, "tokens": seen}, args.out)

    for step in range(0, len(batches), MICRO_PER_STEP):
        group = [padded(b, data, starts) for b in batches[step:step + MICRO_PER_STEP]]
        scale = 1.0 / sum(float(w.sum()) for _, _, w in group)
        for ids, targets, weights in group[rank::WORKERS]:
            loss, losses = loss_of(model, ids, targets, weights)
            (loss * scale).backward()
            losses, weights = losses.detach(), weights.flatten()
            log.append((float(losses[weights == 1].mean()), float(losses[weights > 0].mean())))
        add(rank, matrices + rest)
        seen += sum(int(data["lengths"][b].sum()) for b in batches[step:step + MICRO_PER_STEP])
        torch.nn.utils.clip_grad_norm_(rest, 1.0)
        factor = args.rate * rate_at(seen / total)
        muon.step(MUON_RATE * factor)
        adam.param_groups[0]["lr"] = ADAM_RATE * factor
        adam.step()
        model.zero_grad(set_to_none=True)
        if rank == 0 and step // MICRO_PER_STEP % 20 == 19:
            said, both = np.mean(log, axis=0)
            print(f"{seen / total:6.1%} said {said:.4f} all {both:.4f} {seen / (time.time() - begun):.0f} tokens/s {time.time() - begun:.0f} s", flush=True)
            log = []
        if rank == 0 and time.time() - saved_at > CHECKPOINT_SECONDS:
            save()
            saved_at = time.time()
        if args.until and seen >= args.until:
            break
    if rank == 0:
        save()
        print(f"done in {time.time() - begun:.0f} s", flush=True)


def main():
    arg = argparse.ArgumentParser(description=__doc__)
    arg.add_argument("--data", type=Path, required=True)
    arg.add_argument("--out", type=Path, required=True)
    arg.add_argument("--start", type=Path, help="go on from this file")
    arg.add_argument("--rate", type=float, default=1.0, help="scales the learning rates")
    arg.add_argument("--until", type=int, help="stop when so many tokens are seen")
    arg.add_argument("--seed", type=int, default=7)
    args = arg.parse_args()
    saved = torch.load(args.start, weights_only=True) if args.start else None
    if saved:
        shape = Shape(**saved["shape"])
    else:
        shape = Shape(vocab=-(-(int(np.load(args.data)["ids"].max()) + 1) // 32) * 32)
    size = sum(p.numel() for p in Starter(shape).parameters())
    torch.multiprocessing.spawn(work, (args, shape, saved and saved["model"], Sum(size)), WORKERS)


if __name__ == "__main__":
    main()
