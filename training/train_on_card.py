#!/usr/bin/env python3
"""Train several students at once on one card within a given time.

    python training/train_on_card.py --pack PACK --output OUT --seconds 225

PACK holds TASK.pool files of prepare.py and the weights that some begin with. Each part is a process that ends by
its own time and keeps what it has in OUT/TASK.pt; one that fails or does not begin is started again without
recorded steps. Everything printed is in OUT/train.log too.
"""

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
# After this part of the time a process that has not recorded a step is started again.
PATIENCE = 0.4
# Too short a rest is not worth a start.
SHORTEST = 25
GRACE = 12


@dataclass
class Part:
    task: str
    share: float  # of the time, counted from the start
    arguments: tuple[str, ...]
    process: subprocess.Popen | None = None
    restarted: bool = False


PARTS = (
    Part("headneck_high", 1.0, ("--batch", "4", "--start-from", "headneck.pt", "--degraded", "0.25", "--rate", "1e-3")),
    Part("limb", 0.72, ("--batch", "2", "--folds", "--rate", "2.5e-3")),
    Part("abdomen", 0.95, ("--batch", "2", "--folds", "--rate", "2.5e-3")),
    Part("bone_names", 0.95, ("--batch", "2", "--folds", "--rate", "2.5e-3")),
)


def pool_of(task: str) -> str:
    return "headneck.pool" if task.startswith("headneck") else f"{task}.pool"


class Card:
    def __init__(self, args):
        self.args = args
        self.begin = time.time()
        self.log = (args.output / "train.log").open("a", buffering=1)

    def say(self, text: str) -> None:
        line = f"[{time.time() - self.begin:6.1f}] {text}"
        print(line, flush=True)
        print(line, file=self.log)

    def until(self, part: Part) -> float:
        return self.begin + part.share * self.args.seconds

    def start(self, part: Part, eager: bool) -> None:
        given = [str(self.args.pack / a) if a.endswith(".pt") else a for a in part.arguments]
        command = [sys.executable, "-u", str(HERE / "train.py"), part.task, "--pool", str(self.args.pack / pool_of(part.task)),
                   "--checkpoint", str(self.args.output / f"{part.task}.pt"), "--until", str(self.until(part)),
                   "--steps", str(self.args.steps), "--save-every", "20", "--threads", str(max(1, (os.cpu_count() or 1) // len(PARTS))),
                   *given, *(["--eager"] if eager else [])]
        out = self.path(part).open("a")
        part.process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        out.close()
        self.say(f"{part.task}: process {part.process.pid}{' without recorded steps' if eager else ''}")

    def path(self, part: Part) -> Path:
        return self.args.output / f"{part.task}.log"

    def has_begun(self, part: Part) -> bool:
        printed = self.path(part).read_text()
        return "recorded after" in printed or "step " in printed

    def look_after(self, part: Part) -> bool:
        """Whether it still runs."""
        if part.process is None:
            return False
        code, now = part.process.poll(), time.time()
        if code is None:
            late = now > self.begin + PATIENCE * self.args.seconds and not self.has_begun(part)
            overtime = now > self.until(part) + GRACE
            if not (late and not part.restarted or overtime):
                return True
            part.process.kill()
            code = f"killed, {'too slow to begin' if late else 'over its time'}"
        if code == 0 or part.restarted or self.until(part) - now < SHORTEST:
            self.say(f"{part.task}: ended, {code}")
            part.process = None
            return False
        part.restarted = True
        self.say(f"{part.task}: {code}; once more")
        self.start(part, eager=True)
        return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--steps", type=int, default=100_000, help="fewer for a trial")
    parser.add_argument("--tasks", nargs="*", default=[part.task for part in PARTS])
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    card = Card(args)
    parts = [part for part in PARTS if part.task in args.tasks]
    for part in parts:
        try:
            card.start(part, eager=False)
        except OSError as error:
            card.say(f"{part.task}: {error}")
    while any([card.look_after(part) for part in parts]):
        time.sleep(0.5)
    for part in parts:
        for line in card.path(part).read_text().splitlines() if card.path(part).exists() else ():
            print(f"{part.task}: {line}", file=card.log)
        card.path(part).unlink(missing_ok=True)
    for left in args.output.glob("*.part"):
        left.unlink()
    for path in sorted(args.output.iterdir()):
        card.say(f"{path.name} {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
