"""Muon: momentum with orthogonalised updates, for matrices.

The orthogonalisation is approximate: Newton's iteration of fifth degree with the coefficients of its authors.
"""
import torch

from model import KIND


def orthogonal(update, rounds=5):
    """Nearest (approximately) semi-orthogonal matrices to `update`, `[matrices, rows, columns]`."""
    x = update.to(KIND)
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(rounds):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.775 * gram + 2.0315 * gram @ gram) @ x
    return (x.mT if tall else x).float()


class Muon:
    """Updates every `workers`-th matrix of each size, beginning with the `rank`-th; other workers do the others."""

    def __init__(self, parameters, rank, workers, momentum=0.95, decay=0.01):
        sizes = {}
        for p in parameters:
            sizes.setdefault(tuple(p.shape), []).append(p)
        self.groups = [group[rank::workers] for group in sizes.values()]
        self.momentum, self.decay = momentum, decay
        self.buffers = [torch.zeros(len(group), *group[0].shape) for group in self.groups]

    @torch.no_grad()
    def step(self, rate):
        for buffer, group in zip(self.buffers, self.groups):
            grad = torch.stack([p.grad for p in group])
            buffer.lerp_(grad, 1 - self.momentum)
            rows, columns = buffer.shape[1:]
            update = orthogonal(grad.lerp(buffer, self.momentum)) * max(1, rows / columns) ** 0.5
            for p, u in zip(group, update):
                p.mul_(1 - rate * self.decay).add_(u, alpha=-rate)
