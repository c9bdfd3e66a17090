"""Trains the starter model on the CPU, in bfloat16 where that is fast, else in float32.

    python train.py --data build/chats1.npz build/chats2.npz --vocabulary build/vocabulary.json --rates 6000000:1 14000000:0 --out build/last.pt

One pass over the files, one after the other. The learning rate follows the tokens seen, not the clock, so a
second run takes the same steps; a run that was cut off goes on from its last saved step. Matrices are
trained with Muon, all else with AdamW (`optimise.py`).
"""
import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

import batches
from model import Shape, Starter, surprise
from optimise import Muon
from vocabulary import twins

WORKERS = 2  # processes, one for each core
BARRIER_SECONDS = 3600  # a worker waits so long for the other: a step takes seconds, unless the run is paused
MUON_RATE, ADAM_RATE = 0.02, 0.003
RISE_TOKENS = 150_000
LEAST_RATE = 0.02  # where the rise begins
SAVE_STEPS, LOG_STEPS = 50, 10
COUNTED_STEP = 256  # each new size costs time and memory for a kernel of its own


def rate_at(seen, points):
    """Share of the full rate after `seen` tokens: a short rise, then on lines from one of `points` to the next."""
    rise = LEAST_RATE + seen / RISE_TOKENS
    return float(min(rise, np.interp(seen, [at for at, _ in points], [share for _, share in points])))


def point(text):
    at, _, share = text.partition(":")
    return int(at), float(share)


def loss_of(model, batch):
    """Weighted sum of the losses, and the losses of the tokens that have a weight, with these weights."""
    weights = batch.weights.flatten()
    counted = weights.nonzero().squeeze(1)  # the output head is a quarter of the work: only where it counts
    spare = -len(counted) % COUNTED_STEP
    counted, weights = F.pad(counted, (0, spare)), F.pad(weights[counted], (0, spare))
    hidden = model.hidden(batch.ids, batch.places, batch.mask).flatten(0, 1)
    logits = model.logits(hidden.index_select(0, counted))
    losses = surprise(logits, batch.targets.flatten()[counted])
    return (losses * weights).sum(), losses.detach(), weights


class Worker:
    """One process: it learns from every second batch and updates every second matrix of a model in shared memory.

    One thread per process: threads inside one process wait for each other at every operation, which
    costs most of the speed as soon as anything else uses the machine.
    """

    def __init__(self, rank, args, model, slots, barrier):
        self.rank, self.args, self.model, self.slots, self.barrier = rank, args, model, slots, barrier
        self.data = batches.Data(args.data, args.seed)
        named = list(model.named_parameters())
        self.parameters = [p for _, p in named]
        matrices = [p for n, p in named if p.dim() == 2 and "embed" not in n]
        self.rest = [p for n, p in named if p.dim() == 1 or "embed" in n]
        self.muon = Muon(matrices, rank, WORKERS)
        self.adam = torch.optim.AdamW(self.rest, lr=ADAM_RATE, betas=(0.9, 0.95), weight_decay=0.0)
        self.step, self.seen, self.log = 0, 0, []

    def own_file(self):
        """Where this worker keeps what only it knows of the state of the run."""
        return self.args.out.with_suffix(f".worker{self.rank}")

    def save(self):
        state = {"step": self.step, "seen": self.seen, "muon": self.muon.buffers, "adam": self.adam.state_dict()}
        files = [(self.own_file(), state)]
        if self.rank == 0:
            saved = {"model": self.model.state_dict(), "shape": self.model.shape.as_dict(), "tokens": self.seen, "step": self.step}
            files.append((self.args.out, saved))
        for path, content in files:
            part = path.with_name(path.name + ".part")
            torch.save(content, part)
            part.replace(path)
        self.wait()

    def resume(self):
        """Go on where the last run with the same output file was cut off. The model is loaded already."""
        state = torch.load(self.own_file(), weights_only=True)
        self.step, self.seen, self.muon.buffers = state["step"], state["seen"], state["muon"]
        self.adam.load_state_dict(state["adam"])

    def wait(self):
        self.barrier.wait(BARRIER_SECONDS)

    def learn(self, group):
        """One step on `group`, as many lists of chats as there are workers."""
        batch = self.data.padded(group[self.rank])
        total = sum(self.data.weight_of(b) for b in group)
        loss, losses, weights = loss_of(self.model, batch)
        (loss / total).backward()
        self.log.append((float(losses[weights == batches.SAID].mean()), float((losses * weights).sum() / weights.sum())))
        self.slots[self.rank].copy_(torch.cat([p.grad.flatten() for p in self.parameters]))
        self.wait()
        summed, at = self.slots.sum(0), 0
        for p in self.parameters:
            p.grad = summed[at:at + p.numel()].view_as(p)
            at += p.numel()
        factor = rate_at(self.seen, self.args.rates)
        self.muon.step(MUON_RATE * factor)
        if self.rank == 0:
            torch.nn.utils.clip_grad_norm_(self.rest, 1.0)
            self.adam.param_groups[0]["lr"] = ADAM_RATE * factor
            self.adam.step()
        self.model.zero_grad(set_to_none=True)
        self.seen += sum(self.data.tokens_of(b) for b in group)
        self.step += 1
        self.wait()

    def run(self):
        begun, before = time.time(), self.seen
        while self.seen < self.args.rates[-1][0] and (self.step + 1) * WORKERS <= len(self.data.batches):
            self.learn(self.data.batches[self.step * WORKERS:(self.step + 1) * WORKERS])
            if self.rank == 0 and self.step % LOG_STEPS == 0:
                said, both = np.nanmean(self.log, axis=0)
                speed = (self.seen - before) / (time.time() - begun)
                print(f"step {self.step} tokens {self.seen} said {said:.4f} all {both:.4f} {speed:.0f} tokens/s {time.time() - begun:.0f} s, {time.process_time():.0f} s of a core", flush=True)
                self.log = []
            if self.step % SAVE_STEPS == 0:
                self.save()
        self.save()
        if self.rank == 0:
            print(f"done: {self.seen} tokens in {self.step} steps", flush=True)


def work(rank, args, model, slots, barrier, cut_off):
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    worker = Worker(rank, args, model, slots, barrier)
    if cut_off:
        worker.resume()
    worker.run()


def main():
    arg = argparse.ArgumentParser(description=__doc__)
    arg.add_argument("--data", type=Path, required=True, nargs="+")
    arg.add_argument("--vocabulary", type=Path, required=True)
    arg.add_argument("--out", type=Path, required=True)
    arg.add_argument("--rates", type=point, required=True, nargs="+", help="TOKENS:SHARE of the full learning rate after so many tokens; the last ends the training")
    arg.add_argument("--start", type=Path, help="begin with the model of this file")
    arg.add_argument("--seed", type=int, default=7)
    args = arg.parse_args()
    torch.manual_seed(args.seed)
    tokenizer = Tokenizer.from_file(str(args.vocabulary))
    cut_off = args.out.exists()
    first = args.out if cut_off else args.start
    saved = torch.load(first, weights_only=True) if first else None
    shape = Shape(**saved["shape"]) if saved else Shape(vocab=batches.vocabulary_size(tokenizer))
    model = Starter(shape, twins(tokenizer))
    if saved:
        model.load_state_dict(saved["model"])
    model.share_memory()
    size = sum(p.numel() for p in model.parameters())
    print(f"{size / 1e6:.2f} M parameters", flush=True)
    barrier = torch.multiprocessing.get_context("spawn").Barrier(WORKERS)
    slots = torch.zeros(WORKERS, size).share_memory_()
    torch.multiprocessing.spawn(work, (args, model, slots, barrier, cut_off), WORKERS)


if __name__ == "__main__":
    main()
