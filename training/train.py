#!/usr/bin/env python3
"""Train the student on the CPU: AdamW, warm-up and cosine decay, deep supervision, averaged weights."""

import argparse
import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from bone_labels import BONE, IGNORE
from cases import list_cases
from dataset import Patches
from network import PATCH, build_student

WARM_UP = 100
SAVE_EVERY = 250


def loss_at(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross-entropy plus batch Dice of the bone, both without the ignored voxels."""
    logits = logits.float()
    entropy = F.cross_entropy(logits, target, ignore_index=IGNORE)
    known = target != IGNORE
    bone = torch.softmax(logits, 1)[:, BONE][known]
    truth = (target[known] == BONE).float()
    dice = (2 * (bone * truth).sum() + 1) / (bone.sum() + truth.sum() + 1)
    return entropy + 1 - dice


def deep_loss(outputs: list[torch.Tensor], target: torch.Tensor) -> torch.Tensor:
    """Weights halve per level; the coarsest level takes no part, as in nnU-Net."""
    weights = [0.5**level for level in range(len(outputs) - 1)]
    total = torch.zeros(())
    for weight, logits in zip(weights, outputs):
        coarse = F.interpolate(target[:, None].float(), size=logits.shape[2:], mode="nearest")[:, 0].long()
        total = total + weight / sum(weights) * loss_at(logits, coarse)
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True, help="what prepare.py wrote")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--start-from", type=Path, help="checkpoint whose weights to begin with")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--minutes", type=float, default=math.inf,
                        help="decay faster so as to end by then: for a machine that others use too")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    cases = [case for case in list_cases(args.data) if not case.held_out]
    patches = Patches(cases, args.cache, PATCH, args.seed)
    # One worker keeps the order of patches, and so the run, reproducible.
    batches = iter(DataLoader(patches, batch_size=args.batch, num_workers=1, prefetch_factor=4))

    net = build_student(deep_supervision=True).to(memory_format=torch.channels_last_3d)
    if args.start_from:
        net.load_state_dict(torch.load(args.start_from)["network_weights"])
    optimizer = torch.optim.AdamW(net.parameters(), lr=args.rate, weight_decay=1e-2)
    average = torch.optim.swa_utils.AveragedModel(net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.997))

    start, running, step, progress = time.time(), 0.0, 0, 0.0
    while progress < 1:
        step += 1
        for group in optimizer.param_groups:
            group["lr"] = args.rate * rate_factor(step, progress)
        x, target = next(batches)
        x = x.to(memory_format=torch.channels_last_3d)
        with torch.autocast("cpu", torch.bfloat16):
            outputs = net(x)
        loss = deep_loss(outputs, target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        average.update_parameters(net)

        minutes = (time.time() - start) / 60
        progress = max(step / args.steps, minutes / args.minutes)
        running += (loss.item() - running) / min(step, 100)
        if step % 50 == 0:
            print(f"step {step}  loss {running:.4f}  {minutes:.1f} min", flush=True)
        if step % SAVE_EVERY == 0 or progress >= 1:
            torch.save({"network_weights": average.module.state_dict(), "step": step, "seed": args.seed}, args.checkpoint)


def rate_factor(step: int, progress: float) -> float:
    if step < WARM_UP:
        return step / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


if __name__ == "__main__":
    main()
