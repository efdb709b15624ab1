"""What training minimizes. Nothing here waits for the device."""

import math

import torch
import torch.nn.functional as F

from tasks import IGNORE


def loss_at(logits: torch.Tensor, target: torch.Tensor, annotated: torch.Tensor, partial: bool) -> torch.Tensor:
    """Cross-entropy plus batch Dice, both without ignored voxels and without punishing what nobody labeled.

    A voxel marked background may belong to any structure that the patient's annotation
    leaves out, so there the probabilities of background and of those are added up
    (marginal loss: Shi et al., Medical Image Analysis 2021). `partial` says whether any annotation does.
    """
    # Labels before voxels and dense: a softmax over the last few values of each voxel took a sixth of a step.
    logits, target = logits.flatten(2).contiguous().float(), target.flatten(1)[:, None]
    known = target != IGNORE
    ids = torch.where(known, target, 0)
    log_p = torch.log_softmax(logits, 1)
    picked = log_p.gather(1, ids)
    if partial:
        background = torch.arange(annotated.shape[1], device=annotated.device) == 0
        maybe = ~annotated | background
        union = torch.logsumexp(log_p.masked_fill(~maybe[..., None], -math.inf), 1, keepdim=True)
        picked = torch.where(ids == 0, union, picked)
    entropy = -(picked * known).sum() / known.sum().clamp_min(1)

    p = log_p.exp()
    predicted = (p * known).sum(2)
    hit = (p.gather(1, ids) * known)[:, 0]
    overlap = torch.zeros_like(predicted).scatter_add(1, ids[:, 0], hit)
    size = torch.zeros_like(predicted).scatter_add(1, ids[:, 0], known[:, 0].float())
    counted = annotated.float()
    predicted, overlap, size = ((v * counted).sum(0)[1:] for v in (predicted, overlap, size))
    # A structure that is not in this batch is the entropy's business.
    present = size > 0
    dice = (2 * overlap + 1) / (predicted + size + 1)
    return entropy + ((1 - dice) * present).sum() / present.sum().clamp_min(1)


def deep_loss(outputs: list[torch.Tensor], target: torch.Tensor, annotated: torch.Tensor, partial: bool, kept) -> torch.Tensor:
    """Weights halve per level; the coarsest level takes no part, as in nnU-Net.

    `kept` are the voxels of the finest level that a `SampledHead` has chosen.
    """
    weights = [0.5**level for level in range(len(outputs) - 1)]
    total = torch.zeros((), device=target.device)
    for level, (weight, logits) in enumerate(zip(weights, outputs)):
        if level == 0 and kept is not None:
            coarse = target.flatten(1)[:, kept]
        else:
            coarse = F.interpolate(target[:, None].float(), size=logits.shape[2:], mode="nearest")[:, 0].long()
        total = total + weight / sum(weights) * loss_at(logits, coarse, annotated, partial)
    return total


def distance(logits: torch.Tensor, taught: torch.Tensor) -> torch.Tensor:
    """Kullback-Leibler divergence from the teacher's probabilities, plus one minus the Dice between the two.

    The teacher also says what lies where a patient's annotation leaves a structure out.
    Nearly all voxels are background, where both agree; the Dice part gives structures their weight.
    """
    log_p = torch.log_softmax(logits.float().flatten(2), 1)
    q = torch.softmax(taught.float().flatten(2), 1)
    divergence = F.kl_div(log_p, q, reduction="none").sum(1).mean()
    p = log_p.exp()
    overlap, size = (2 * (p * q).sum(2)[:, 1:] + 1), ((p + q).sum(2)[:, 1:] + 1)
    return divergence + (1 - overlap / size).mean()
