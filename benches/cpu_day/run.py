"""A minute and a half on a CPU that is not at hand: is every instruction set right, and how fast?

    bash benches/cpu_day/pack.sh                              # here
    python3 target/cpu_day/run.py [--threads 2 16]            # there; needs what pack.sh packed

Runs the kernels' own tests (every instruction set against f64, int8 to the byte), times real layers
on every set, the student of benches/peers in every precision, and beside it ONNX Runtime and PyTorch
where they are installed. Prints one table each and ends in --limit seconds.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
PATCH = (160, 96, 96)
FEATURES = (8, 16, 32, 64, 80)
CLASSES = 61
# Cap of the instruction set, precision.
ENGINES = [("amx", "int8"), ("amx", "bf16"), ("avx512-vnni", "int8"), ("avx512-bf16", "bf16"), ("avx512", "f32"),
           ("avx2-vnni", "int8"), ("avx2-vnni-evex", "int8"), ("avx2", "f32")]
START = time.monotonic()


def said(text=""):
    print(text, flush=True)


def cpu():
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    get = lambda key: next((l.split(":", 1)[1].strip() for l in lines if l.startswith(key)), "?")
    flags = set(get("flags").split())
    wanted = ["avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8"]
    return f"{get('model name')}, {os.cpu_count()} CPUs: {' '.join(f for f in wanted if f in flags)}"


def ours(isa, precision, threads, seconds):
    """Best and median seconds of our engine, or why there are none."""
    command = [str(HERE / "bench_engine"), str(HERE / "student8.onnx"), *map(str, PATCH), "--isa", isa, "--precision",
               precision, "--threads", str(threads), "--runs", "5"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return "too slow"
    if run.returncode:
        return run.stderr.strip().splitlines()[-1][:60]
    times = sorted(json.loads(run.stdout.splitlines()[-1])["seconds"])
    return times[0], times[len(times) // 2]


def peer(name, threads):
    """Child process: best and median seconds of ONNX Runtime or of PyTorch in bf16."""
    import numpy as np

    x = np.random.default_rng(0).standard_normal((1, 1, *PATCH)).astype(np.float32)
    if name == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(str(HERE / "student8.onnx"), options, providers=["CPUExecutionProvider"])
        run = lambda: session.run(None, {"input": x})
    else:
        import torch

        torch.set_num_threads(threads)
        net = unet(torch).eval().to(memory_format=torch.channels_last_3d)
        tensor = torch.from_numpy(x).to(memory_format=torch.channels_last_3d)

        def run():
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
                net(tensor)

    run()
    times = []
    for _ in range(4):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    times.sort()
    print(json.dumps([times[0], times[2]]))


def unet(torch):
    """The student's layers in plain PyTorch; weights do not matter for time."""
    nn = torch.nn

    def block(inputs, outputs, stride):
        return nn.Sequential(nn.Conv3d(inputs, outputs, 3, stride, 1), nn.InstanceNorm3d(outputs, affine=True),
                             nn.LeakyReLU(inplace=True))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            pairs = list(zip((1, *FEATURES), FEATURES))
            self.down = nn.ModuleList(nn.Sequential(block(i, o, 1 if k == 0 else 2), block(o, o, 1))
                                      for k, (i, o) in enumerate(pairs))
            up = list(zip(FEATURES[::-1], FEATURES[-2::-1]))
            self.up = nn.ModuleList(nn.ConvTranspose3d(i, o, 2, 2) for i, o in up)
            self.join = nn.ModuleList(nn.Sequential(block(2 * o, o, 1), block(o, o, 1)) for _, o in up)
            self.head = nn.Conv3d(FEATURES[0], CLASSES, 1)

        def forward(self, x):
            skips = []
            for stage in self.down:
                x = stage(x)
                skips.append(x)
            for up, join, skip in zip(self.up, self.join, skips[-2::-1]):
                x = join(torch.cat((up(x), skip), 1))
            return self.head(x)

    return Net()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="*", default=[2, min(16, os.cpu_count())])
    parser.add_argument("--limit", type=float, default=85, help="seconds in all")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer:
        peer(args.peer, args.threads[0])
        return
    left = lambda: args.limit - (time.monotonic() - START)
    said(cpu())
    try:
        tests = subprocess.run([str(HERE / "kernel_tests")], capture_output=True, text=True, timeout=30)
        said("kernel tests: " + next((l for l in tests.stdout.splitlines() if "test result" in l), f"exit {tests.returncode}"))
        if tests.returncode:
            said("\n".join(l for l in tests.stdout.splitlines() if "panicked" in l or "FAILED" in l or "assert" in l)[:2000])
    except subprocess.TimeoutExpired:
        said("kernel tests: not done in 30 s")
    for threads in dict.fromkeys(args.threads):
        said(f"\nstudent 8..80, {'x'.join(map(str, PATCH))}, {CLASSES} classes, {threads} threads: best s, median s")
        rows = [(f"ours {isa} {precision}", lambda i=isa, p=precision: ours(i, p, threads, max(left(), 1)))
                for isa, precision in ENGINES]

        def child(name):
            command = [sys.executable, __file__, "--peer", name, "--threads", str(threads)]
            try:
                run = subprocess.run(command, capture_output=True, text=True, timeout=max(left(), 1))
            except subprocess.TimeoutExpired:
                return "too slow"
            return tuple(json.loads(run.stdout)) if run.returncode == 0 else run.stderr.strip().splitlines()[-1][:60]

        rows += [("ONNX Runtime f32", lambda: child("onnxruntime")), ("PyTorch bf16", lambda: child("torch"))]
        for name, run in rows:
            if left() < 3:
                said(f"{name:30} no time left")
                continue
            found = run()
            said(f"{name:30} {found}" if isinstance(found, str) else f"{name:30} {found[0]:8.4f} {found[1]:8.4f}")
    for threads in dict.fromkeys(args.threads):
        if left() < 4:
            break
        sets = ["amx", "avx512-bf16", "avx512-vnni", "avx512", "avx2-vnni", "avx2"]
        command = [str(HERE / "layers"), "--threads", str(threads), "--seconds", "0.03", "--isa", *sets]
        try:
            said("\n" + subprocess.run(command, capture_output=True, text=True, timeout=max(left(), 1)).stdout)
        except subprocess.TimeoutExpired as late:
            said("\n" + (late.stdout or b"").decode())
    said(f"{time.monotonic() - START:.0f} s")


if __name__ == "__main__":
    main()
