"""Muon: momentum whose step every direction of a kernel takes equally (Jordan et al. 2024, kellerjordan.github.io/posts/muon)."""

import torch


class Muon(torch.optim.Optimizer):
    """For convolution kernels, as matrices of output channels by all the rest; PyTorch's own takes only what is a matrix."""

    def __init__(self, params, lr: float, momentum: float = 0.95, weight_decay: float = 0.01):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for kernel in group["params"]:
                if kernel.grad is None:
                    continue
                state = self.state[kernel]
                if not state:
                    state["momentum"] = torch.zeros_like(kernel)
                momentum = state["momentum"].lerp_(kernel.grad, 1 - group["momentum"])
                ahead = kernel.grad.lerp(momentum, group["momentum"]).contiguous().flatten(1)
                # With this factor the step is as large as one of AdamW's (Liu et al. 2025, arXiv 2502.16982).
                size = 0.2 * max(ahead.shape) ** 0.5
                kernel.mul_(1 - group["lr"] * group["weight_decay"])
                kernel.sub_(orthogonal(ahead).view(kernel.shape), alpha=group["lr"] * size)


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """About U V' of the decomposition U S V', by five Newton-Schulz steps that need no more precision than this."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.T if tall else x
