#!/usr/bin/env python3
"""Train a student on the CPU: Muon and AdamW, warm-up and cosine decay, deep supervision, averaged weights."""

import argparse
import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from cases import list_cases
from dataset import Patches
from muon import Muon
from network import build_student, read_weights
from tasks import IGNORE, TASKS

WARM_UP = 100
SAVE_EVERY = 200
# Muon's rate as a multiple of AdamW's.
MUON = 3.0


class SampledHead(torch.nn.Conv3d):
    """The last layer at some random voxels: with a hundred labels it costs more than the rest of the network."""

    share: float

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(2)
        self.kept = torch.randperm(x.shape[2])[: round(self.share * x.shape[2])]
        return F.conv1d(x[..., self.kept], self.weight.flatten(2), self.bias)


class LoneNorm(torch.nn.InstanceNorm3d):
    """The norm of a batch of one image, where it is what batch norm computes, which needs no copy of a channels-last tensor."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > 1:
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return F.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)


def loss_at(logits: torch.Tensor, target: torch.Tensor, annotated: torch.Tensor) -> torch.Tensor:
    """Cross-entropy plus batch Dice, both without ignored voxels and without punishing what nobody labeled.

    A voxel marked background may belong to any structure that the patient's annotation
    leaves out, so there the probabilities of background and of those are added up
    (marginal loss: Shi et al., Medical Image Analysis 2021).
    """
    # Labels before voxels and dense: a softmax over the last few values of each voxel took a sixth of a step.
    logits, target = logits.flatten(2).contiguous().float(), target.flatten(1)[:, None]
    known = target != IGNORE
    ids = torch.where(known, target, 0)
    log_p = torch.log_softmax(logits, 1)
    picked = log_p.gather(1, ids)
    if not annotated.all():
        maybe = ~annotated
        maybe[:, 0] = True
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
    return entropy + (1 - dice[present].mean() if present.any() else 0.0)


def deep_loss(outputs: list[torch.Tensor], target: torch.Tensor, annotated: torch.Tensor, kept) -> torch.Tensor:
    """Weights halve per level; the coarsest level takes no part, as in nnU-Net.

    `kept` are the voxels of the finest level that a `SampledHead` has chosen.
    """
    weights = [0.5**level for level in range(len(outputs) - 1)]
    total = torch.zeros(())
    for level, (weight, logits) in enumerate(zip(weights, outputs)):
        if level == 0 and kept is not None:
            coarse = target.flatten(1)[:, kept]
        else:
            coarse = F.interpolate(target[:, None].float(), size=logits.shape[2:], mode="nearest")[:, 0].long()
        total = total + weight / sum(weights) * loss_at(logits, coarse, annotated)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True, help="what prepare.py wrote")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--start-from", type=Path,
                        help="checkpoint or ONNX file to begin with: of the same network or of one half as wide")
    parser.add_argument("--teacher", choices=TASKS, help="learn from this task's network too (needs --teacher-weights)")
    parser.add_argument("--teacher-weights", type=Path, help="the teacher's checkpoint or ONNX file")
    parser.add_argument("--only", nargs="*", help="train on these patients instead of all that are not held out")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--minutes", type=float, default=math.inf,
                        help="decay faster so as to end by then: for a machine that others use too")
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--degraded", type=float, default=1.0,
                        help="part of the patches that scanner effects and bad image quality may befall; "
                             "less for a last phase, when a network is not yet good on clean ones")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    task = TASKS[args.task]
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    cases = [c for c in list_cases(args.data, task)
             if (c.name in args.only if args.only else c.name not in task.held_out)]
    patches = Patches(cases, args.cache, task, args.seed, args.degraded)
    # One worker keeps the order of patches, and so the run, reproducible.
    batches = iter(DataLoader(patches, batch_size=task.batch, num_workers=1, prefetch_factor=4))

    layout = torch.channels_last if task.flat else torch.channels_last_3d
    net = build_student(task, deep_supervision=True).to(memory_format=layout)
    if args.start_from:
        net.load_state_dict(read_weights(args.start_from, net))
    for module in net.modules():
        if isinstance(module, torch.nn.InstanceNorm3d):
            module.__class__ = LoneNorm
    head = net.decoder.seg_layers[-1]
    if task.loss_share < 1:
        head.__class__, head.share = SampledHead, task.loss_share
    teacher = None
    if args.teacher:
        teacher = build_student(TASKS[args.teacher], deep_supervision=False).to(memory_format=layout).eval()
        teacher.load_state_dict(read_weights(args.teacher_weights, teacher))
    kernels = {name: p for name, p in net.named_parameters() if p.dim() > 2 and "seg_layers" not in name}
    others = [p for name, p in net.named_parameters() if name not in kernels]
    optimizers = {torch.optim.AdamW(others, weight_decay=1e-2): args.rate,
                  Muon(kernels.values(), MUON * args.rate): MUON * args.rate}
    average = torch.optim.swa_utils.AveragedModel(net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995))

    start, running, step, progress = time.time(), 0.0, 0, 0.0
    while progress < 1:
        step += 1
        for optimizer, rate in optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = rate * rate_factor(step, progress, 20 if args.start_from else WARM_UP)
        x, target, annotated = next(batches)
        x = x.to(memory_format=layout)
        with torch.autocast("cpu", torch.bfloat16):
            outputs = net(x)
            if teacher:
                with torch.no_grad():
                    taught = teacher(x)
        kept = getattr(head, "kept", None)
        loss = deep_loss(outputs, target, annotated, kept)
        if teacher:
            loss = loss + distance(outputs[0], taught if kept is None else taught.flatten(2)[..., kept])
        net.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        for optimizer in optimizers:
            optimizer.step()
        average.update_parameters(net)

        minutes = (time.time() - start) / 60
        progress = max(step / args.steps, minutes / args.minutes)
        running += (loss.item() - running) / min(step, 100)
        if step % 50 == 0:
            print(f"step {step}  loss {running:.4f}  {minutes:.1f} min", flush=True)
        if step % SAVE_EVERY == 0 or progress >= 1:
            torch.save({"network_weights": average.module.state_dict(), "step": step, "seed": args.seed,
                        "minutes": minutes}, args.checkpoint)


def rate_factor(step: int, progress: float, warm_up: int) -> float:
    if step < warm_up:
        return step / warm_up
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


if __name__ == "__main__":
    main()
