#!/usr/bin/env python3
"""Train a student: Muon and AdamW, warm-up and cosine decay, deep supervision, averaged weights.

On a CPU or a CUDA card. With `--folds` the networks that are tested on the patients left out are trained beside the
shipped one, all at once; a card repeats each network's step from a recording (CUDA graphs), on a stream of its own.
"""

import argparse
import contextlib
import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F

import augment
from losses import deep_loss, distance
from muon import AdamW, Muon
from network import build_student, read_weights
from pool import Pool, Sampler
from tasks import TASKS, Task

WARM_UP = 60
# Muon's rate as a multiple of AdamW's.
MUON = 3.0
AVERAGED = 0.995
LARGEST_GRADIENT = 5.0


class SampledHead(torch.nn.Conv3d):
    """The last layer at some random voxels: with a hundred labels it costs more than the rest of the network."""

    share: float

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(2)
        self.kept = torch.randint(x.shape[2], (round(self.share * x.shape[2]),), device=x.device)
        return F.conv1d(x[..., self.kept], self.weight.flatten(2), self.bias)


class LoneNorm(torch.nn.InstanceNorm3d):
    """The norm of a batch of one image, where it is what batch norm computes, which needs no copy of a channels-last tensor."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > 1:
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return F.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)


class Run:
    """One network in training."""

    def __init__(self, name: str, task: Task, sampler: Sampler, args):
        self.name, self.task, self.sampler = name, task, sampler
        self.batch = args.batch or task.batch
        self.degraded = args.degraded
        self.device = sampler.pool.device
        self.layout = torch.channels_last if task.flat else torch.channels_last_3d
        self.net = build_student(task, deep_supervision=True)
        # Nearly all voxels are background, which the last layer's small steps would take long to learn.
        for head in self.net.decoder.seg_layers:
            torch.nn.init.zeros_(head.bias)
            head.bias.data[0] = 3.0
        if args.start_from:
            self.net.load_state_dict(read_weights(args.start_from, self.net, args.start_network))
        self.net.to(self.device, memory_format=self.layout)
        if self.device.type == "cpu":
            for module in self.net.modules():
                if isinstance(module, torch.nn.InstanceNorm3d):
                    module.__class__ = LoneNorm
        self.head = self.net.decoder.seg_layers[-1]
        if task.loss_share < 1:
            self.head.__class__, self.head.share = SampledHead, task.loss_share
        self.teacher = None
        if args.teacher:
            teacher = build_student(TASKS[args.teacher], deep_supervision=False).eval()
            teacher.load_state_dict(read_weights(args.teacher_weights, teacher))
            self.teacher = teacher.to(self.device, memory_format=self.layout)
        # The side head of the coarsest level takes no part.
        idle = {id(p) for p in self.net.decoder.seg_layers[0].parameters()}
        named = [(n, p) for n, p in self.net.named_parameters() if id(p) not in idle]
        kernels = [p for n, p in named if p.dim() > 2 and "seg_layers" not in n]
        others = [p for n, p in named if not (p.dim() > 2 and "seg_layers" not in n)]
        self.parameters = kernels + others
        self.rate = torch.zeros((), device=self.device)
        self.optimizers = Muon(kernels, self.rate, MUON), AdamW(others, self.rate)
        self.average = [p.detach().clone() for p in self.parameters]
        self.loss = torch.zeros((), device=self.device)
        self.partial = not bool(sampler.annotated.all())
        self.graph = self.stream = None

    def step(self) -> None:
        empty = self.task.intensity[2]
        batch = self.sampler.draw(self.batch, empty)
        x, target = augment.inputs(batch, self.task, self.degraded)
        if self.task.flat:
            x, target = x[:, :, 0], target[:, 0]
        x = x.to(memory_format=self.layout)
        self.net.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, cache_enabled=self.device.type == "cpu"):
            outputs = self.net(x)
            if self.teacher:
                with torch.no_grad():
                    taught = self.teacher(x)
        kept = getattr(self.head, "kept", None)
        loss = deep_loss(outputs, target, batch.annotated, self.partial, kept)
        if self.teacher:
            loss = loss + distance(outputs[0], taught if kept is None else taught.flatten(2)[..., kept])
        loss.backward()
        gradients = [p.grad for p in self.parameters]
        size = torch.stack(torch._foreach_norm(gradients)).norm()
        # One bad batch must not spoil what hours or a lent card have made.
        factor = torch.where(size.isfinite(), (LARGEST_GRADIENT / (size + 1e-6)).clamp(max=1), 0.0)
        for gradient in gradients:
            gradient.nan_to_num_(0.0, 0.0, 0.0)
        torch._foreach_mul_(gradients, factor)
        for optimizer in self.optimizers:
            optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.parameters, 1 - AVERAGED)
            # A running mean that begins with the first value.
            self.loss.copy_(torch.where(self.loss == 0, loss, self.loss.lerp(loss, 0.05)))

    def record(self) -> None:
        """Record the step once; some steps before it that change nothing choose kernels and allocate."""
        self.stream = torch.cuda.Stream()
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            for _ in range(3):
                self.step()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream):
            self.step()
        self.graph = graph

    def advance(self, rate: float) -> None:
        with torch.cuda.stream(self.stream) if self.stream else contextlib.nullcontext():
            self.rate.fill_(rate)
            self.graph.replay() if self.graph else self.step()

    def weights(self) -> dict[str, torch.Tensor]:
        """The average. Kernels are kept as training multiplied them, in bf16, and without the side heads."""
        if self.stream:
            self.stream.synchronize()
        averaged = {id(p): a for p, a in zip(self.parameters, self.average)}
        last = f"seg_layers.{len(self.net.decoder.seg_layers) - 1}."
        found = {name: averaged[id(p)].detach() for name, p in self.net.named_parameters()
                 if "seg_layers" not in name or last in name}
        return {name: (w.bfloat16() if w.dim() > 2 else w).contiguous().cpu() for name, w in found.items()}


def save(runs: list[Run], path: Path, step: int, args, minutes: float) -> None:
    """Written aside first: a run that is cut off must leave what it had."""
    networks = {run.name: {"network_weights": run.weights()} for run in runs}
    aside = path.with_suffix(".part")
    torch.save({"networks": networks, "step": step, "seed": args.seed, "minutes": minutes}, aside)
    aside.replace(path)


def rate_factor(step: int, progress: float, warm_up: int) -> float:
    return min(1.0, step / warm_up) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def train(runs: list[Run], args) -> None:
    start = saved = printed = time.time()
    until = min(args.until or math.inf, start + 60 * args.minutes)
    step, progress = 0, 0.0
    behind = []
    while progress < 1:
        step += 1
        rate = args.rate * rate_factor(step, progress, 20 if args.start_from else WARM_UP)
        for run in runs:
            run.advance(rate)
        if runs[0].stream:
            # The host may be one round ahead of the card, not more, or the clock would mean nothing.
            events = [run.stream.record_event() for run in runs]
            for event in behind:
                event.synchronize()
            behind = events
        now = time.time()
        progress = max(step / args.steps, (now - start) / max(until - start, 1e-3))
        if step % 50 == 0 and now - printed > args.print_every or progress >= 1:
            printed = now
            losses = " ".join(f"{run.name} {run.loss.item():.3f}" for run in runs)
            print(f"step {step}  {now - start:.0f} s  {step / (now - start):.2f} per second  loss {losses}", flush=True)
        if now - saved > args.save_every or progress >= 1:
            save(runs, args.checkpoint, step, args, (now - start) / 60)
            saved = now


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--pool", type=Path, required=True, help="what prepare.py wrote")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--folds", action="store_true", help="also a network for each fold, without its patients")
    parser.add_argument("--without", nargs="*", default=(), help="leave out these patients too")
    parser.add_argument("--start-from", type=Path,
                        help="checkpoint or ONNX file to begin with: of the same network or of one half as wide")
    parser.add_argument("--start-network", help="which network of a checkpoint that holds several")
    parser.add_argument("--teacher", choices=TASKS, help="learn from this task's network too (needs --teacher-weights)")
    parser.add_argument("--teacher-weights", type=Path, help="the teacher's checkpoint or ONNX file")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--minutes", type=float, default=math.inf,
                        help="decay faster so as to end by then: for a machine that others use too")
    parser.add_argument("--until", type=float, help="or by this time, in seconds since 1970")
    parser.add_argument("--batch", type=int, help="patches in a step; as the task says")
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--degraded", type=float, default=1.0,
                        help="part of the patches that scanner effects and bad image quality may befall; "
                             "less for a last phase, when a network is not yet good on clean ones")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--eager", action="store_true", help="no recorded steps on a card")
    parser.add_argument("--print-every", type=float, default=10, help="seconds")
    parser.add_argument("--save-every", type=float, default=60, help="seconds")
    args = parser.parse_args()

    begin = time.time()
    task = TASKS[args.task]
    torch.set_num_threads(args.threads)
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.benchmark_limit = 6
    device = torch.device(args.device)
    pool = Pool(args.pool, device)
    print(f"{len(pool.names)} cases after {time.time() - begin:.1f} s", flush=True)
    left_out = {task.name: task.held_out}
    if args.folds:
        left_out |= {f"{task.name}_{k}": task.without(k) for k in range(len(task.folds))}
    runs = []
    for name, patients in left_out.items():
        # The same start and the same order of everything else for each.
        torch.manual_seed(args.seed)
        run = Run(name, task, Sampler(pool, task, (*patients, *args.without)), args)
        print(f"{name}: {len(run.sampler.names)} cases", flush=True)
        if device.type == "cuda" and not args.eager:
            run.record()
            print(f"recorded after {time.time() - begin:.1f} s, {torch.cuda.memory_reserved() / 2**30:.1f} GiB", flush=True)
        runs.append(run)
    train(runs, args)


if __name__ == "__main__":
    main()
