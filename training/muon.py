"""Optimizers whose rate is a tensor, so that a recorded step can be repeated with another rate.

Muon for convolution kernels: momentum whose step every direction of a kernel takes equally (Jordan et al. 2024,
kellerjordan.github.io/posts/muon). AdamW (Loshchilov and Hutter 2019) for everything else, as one vector.
"""

import torch
import torch.nn.functional as F


class Muon:
    """Takes kernels as matrices of output channels by all the rest; PyTorch's own takes only what is a matrix."""

    def __init__(self, kernels, rate: torch.Tensor, factor: float, momentum: float = 0.95, weight_decay: float = 0.01):
        self.kernels = list(kernels)
        self.rate, self.factor, self.momentum, self.weight_decay = rate, factor, momentum, weight_decay
        self.velocity = [torch.zeros_like(kernel) for kernel in self.kernels]

    @torch.no_grad()
    def step(self) -> None:
        rate = self.rate * self.factor
        ahead = []
        for kernel, velocity in zip(self.kernels, self.velocity):
            velocity.lerp_(kernel.grad, 1 - self.momentum)
            ahead.append(kernel.grad.lerp(velocity, self.momentum).contiguous().flatten(1))
        for kernel, matrix in zip(self.kernels, orthogonal(ahead)):
            # With this factor the step is as large as one of AdamW's (Liu et al. 2025, arXiv 2502.16982).
            size = 0.2 * max(matrix.shape) ** 0.5
            kernel.mul_(1 - rate * self.weight_decay)
            kernel.sub_(matrix.view(kernel.shape) * (rate * size))


class AdamW:
    def __init__(self, params, rate: torch.Tensor, betas=(0.9, 0.999), eps: float = 1e-8, weight_decay: float = 1e-2):
        self.params = list(params)
        self.rate, self.betas, self.eps, self.weight_decay = rate, betas, eps, weight_decay
        self.sizes = [p.numel() for p in self.params]
        self.mean, self.square = (torch.zeros(sum(self.sizes), device=rate.device) for _ in range(2))
        # Each beta to the power of the number of steps, for the bias of the zeros that both begin with.
        self.powers = torch.ones(2, device=rate.device)
        self.decays = torch.tensor(betas, device=rate.device)

    @torch.no_grad()
    def step(self) -> None:
        gradient = torch.cat([p.grad.flatten() for p in self.params])
        self.powers.mul_(self.decays)
        self.mean.lerp_(gradient, 1 - self.betas[0])
        self.square.lerp_(gradient**2, 1 - self.betas[1])
        unbiased = 1 - self.powers
        change = self.mean / unbiased[0] / ((self.square / unbiased[1]).sqrt() + self.eps)
        for p, part in zip(self.params, (change * self.rate).split(self.sizes)):
            p.mul_(1 - self.rate * self.weight_decay).sub_(part.view(p.shape))


def orthogonal(matrices: list[torch.Tensor]) -> list[torch.Tensor]:
    """About U V' of each decomposition U S V', by five Newton-Schulz steps.

    A step multiplies X by a polynomial of X X', so all of them are one product of small square matrices, which for
    all kernels together are one batch: a hundredth of the operations that a card would wait for one by one.
    """
    wide = [m.T if m.shape[0] > m.shape[1] else m for m in matrices]
    wide = [m / (m.norm() + 1e-7) for m in wide]
    n = max(len(m) for m in wide)
    square = torch.stack([F.pad(m @ m.T, (0, n - len(m), 0, n - len(m))) for m in wide])
    one = torch.eye(n, device=square.device)
    product = one.expand_as(square)
    for _ in range(5):
        factor = 3.4445 * one + (-4.7750 * square + 2.0315 * square @ square)
        product = factor @ product
        square = factor @ factor @ square
    found = [p[: len(m), : len(m)] @ m for p, m in zip(product, wide)]
    return [f.T if m.shape[0] > m.shape[1] else f for f, m in zip(found, matrices)]
