"""Times our GPU engine against PyTorch on the same weights, tiles and input, in one run.

    cargo build --release --features cuda --example bench_device
    pip install -c reference/lock.txt onnx scipy torch
    python benches/gpu/compare.py bone_low                         one patch
    python benches/gpu/compare.py bone_low --image 200 256 256     a whole image on the network's grid

PyTorch runs in fp16, channels last, eagerly and through torch.compile; --peers names others. Input
and answer lie in host memory for everyone, so copies count. Each engine is a process of its own.
First every engine alone: time to open, first run, peak GPU memory above what was in use before
(nvidia-smi, 20 times a second). Then all of them by turns, once per round: medians, fastest runs,
ratios to the first peer, and agreement with PyTorch in f32. Without a GPU, `--torch-device cpu
--device reference` checks the script itself.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(pathlib.Path(__file__).parent))


def config(name):
    path, = ROOT.glob(f"config/*/{name}.json")
    return json.loads(path.read_text())


def starts(image, tile, step=0.5):
    """First voxels of tiles along an axis: nnU-Net's rule, as in src/pipeline/tile.rs."""
    import numpy as np

    count = int(np.ceil((image - tile) / (tile * step))) + 1
    return [0] if count == 1 else [int(np.round((image - tile) / (count - 1) * i)) for i in range(count)]


def gaussian(patch):
    import numpy as np
    from scipy.ndimage import gaussian_filter

    bell = np.zeros(patch)
    bell[tuple(n // 2 for n in patch)] = 1
    bell = gaussian_filter(bell, [n / 8 for n in patch], 0, mode="constant", cval=0)
    bell = (bell / bell.max() * 10).astype(np.float16)
    bell[bell == 0] = bell[bell > 0].min()
    return bell


def peer(options):
    """Child process: loads the network in PyTorch, then runs once per line of standard input."""
    import numpy as np
    import torch
    from networks import Onnx

    start = time.perf_counter()
    device, patch, image = options.torch_device, options.patch, options.image
    flat = patch[0] == 1
    kind = torch.float16 if "fp16" in options.peer else torch.float32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = options.peer != "torch-fp32"
    torch.backends.cudnn.benchmark = True
    layout = torch.channels_last if flat else torch.channels_last_3d
    net = Onnx(ROOT / "models" / f"{options.model}.onnx").eval().to(device)
    for name, buffer in net.named_buffers():
        if buffer.is_floating_point():
            # Biases and norm weights are one-dimensional and have no layout.
            many = buffer.dim() == (4 if flat else 5)
            setattr(net, name, buffer.to(kind, memory_format=layout) if many else buffer.to(kind))
    if "compiled" in options.peer:
        net = torch.compile(net)
    shape = image or patch
    x = np.fromfile(pathlib.Path(options.folder) / "input.raw", np.float32).reshape(1, -1, *shape)

    def forward(tile):
        tile = tile[:, :, 0] if flat else tile
        answer = net(tile.to(kind).contiguous(memory_format=layout))
        return answer[:, :, None] if flat else answer

    def run():
        with torch.inference_mode():
            tensor = torch.from_numpy(x).to(device)
            if not image:
                return forward(tensor).float().cpu().numpy()
            weights = torch.from_numpy(gaussian(patch)).to(device, kind)
            total = torch.zeros(shape, dtype=kind, device=device)
            sums = None
            for z in starts(shape[0], patch[0]):
                for y in starts(shape[1], patch[1]):
                    for u in starts(shape[2], patch[2]):
                        at = (..., slice(z, z + patch[0]), slice(y, y + patch[1]), slice(u, u + patch[2]))
                        answer = forward(tensor[at])[0]
                        if sums is None:
                            sums = torch.zeros((len(answer), *shape), dtype=kind, device=device)
                        sums[at] += answer * weights
                        total[at] += weights
            return (sums / total).float().cpu().numpy()

    opened = time.perf_counter() - start
    start = time.perf_counter()
    answer = run()
    print("ready", opened, time.perf_counter() - start, flush=True)
    answer.tofile(pathlib.Path(options.folder) / f"{options.peer}.raw")
    for _ in sys.stdin:
        start = time.perf_counter()
        run()
        print(time.perf_counter() - start, flush=True)


def memory_used():
    """Bytes of the first GPU in use, by anyone; None without nvidia-smi."""
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
    try:
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) << 20
    except (OSError, subprocess.CalledProcessError, ValueError):
        return None


class Child:
    def __init__(self, name, command):
        self.name = name
        self.errors = tempfile.TemporaryFile("w+")
        try:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                            stderr=self.errors, text=True)
        except OSError as error:
            self.ready = False
            print(f"{name}: not available ({error})", file=sys.stderr)
            return
        words = self.process.stdout.readline().split()
        self.ready = words[:1] == ["ready"]
        if self.ready:
            self.opened, self.first = map(float, words[1:])
        else:
            self.process.wait()
            self.errors.seek(0)
            print(f"{name}: not available ({self.errors.read().strip().splitlines()[-1:]})", file=sys.stderr)

    def run(self):
        self.process.stdin.write("run\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def alone(name, command):
    """Opens and runs an engine with nothing else on the GPU; peak bytes above those in use before."""
    before, peak, done = memory_used(), 0, threading.Event()

    def watch():
        nonlocal peak
        while not done.wait(0.05):
            peak = max(peak, memory_used() or 0)

    watcher = threading.Thread(target=watch)
    if before is not None:
        watcher.start()
    child = Child(name, command)
    if child.ready:
        child.run()
        child.close()
    done.set()
    if before is not None:
        watcher.join()
    return child, None if before is None else max(peak - before, 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--patch", type=int, nargs=3, help="default: the model's")
    parser.add_argument("--image", type=int, nargs=3, help="a whole image of so many voxels, z y x")
    parser.add_argument("--device", default="cuda:0", help="of our engine")
    parser.add_argument("--precision", default="f32", help="of our engine")
    parser.add_argument("--torch-device", default="cuda:0")
    parser.add_argument("--peers", nargs="*", default=["torch-fp16", "torch-fp16-compiled"],
                        help="torch-fp16, torch-fp32, each also with -compiled")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--engine", default=str(ROOT / "target/release/examples/bench_device"))
    parser.add_argument("--json", help="also write results here")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.patch = options.patch or config(options.model)["patch_size"]
    options.patch = [1] * (3 - len(options.patch)) + options.patch
    if options.image and any(n < p for n, p in zip(options.image, options.patch)):
        parser.error("the image is smaller than a patch")
    if options.peer:
        peer(options)
        return

    import numpy as np
    import onnx

    graph = onnx.load(ROOT / "models" / f"{options.model}.onnx", load_external_data=False).graph
    channels = graph.input[0].type.tensor_type.shape.dim[1].dim_value or 1
    shape = options.image or options.patch
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        x = np.random.default_rng(0).standard_normal((channels, *shape)).astype(np.float32)
        for axis in (1, 2, 3):  # smooth, as a scan is
            x = (x + np.roll(x, 1, axis) + np.roll(x, -1, axis)) / np.sqrt(3, dtype=np.float32)
        x.tofile(folder / "input.raw")
        image = ["--image", *map(str, options.image)] if options.image else []

        def torch_command(name):
            return [sys.executable, __file__, options.model, "--peer", name, "--folder", str(folder), "--torch-device",
                    options.torch_device, "--patch", *map(str, options.patch), *image]

        ours = f"ours {options.device} {options.precision}"
        commands = {name: torch_command(name) for name in options.peers}
        commands[ours] = [options.engine, options.model, options.device, *map(str, options.patch), *image, "--serve",
                          "--precision", options.precision, "--input", str(folder / "input.raw"), "--output", str(folder / f"{ours}.raw")]
        commands = {"torch-fp32": torch_command("torch-fp32"), **commands}
        results, reference = {}, None
        for name, command in commands.items():
            child, gpu_bytes = alone(name, command)
            if not child.ready:
                continue
            answer = np.fromfile(folder / f"{name}.raw", np.float32).reshape(-1, *shape)
            reference = answer if reference is None else reference
            results[name] = {
                "open": child.opened, "first": child.first, "gpu_bytes": gpu_bytes,
                "difference": float(np.abs(answer - reference).max()),
                "same_label": float((answer.argmax(0) == reference.argmax(0)).mean())}
        by_turns = {name: Child(name, commands[name]) for name in results if name in options.peers or name == ours}
        times = {name: [] for name in by_turns}
        for _ in range(options.rounds):
            for name, child in by_turns.items():
                times[name].append(child.run())
        for child in by_turns.values():
            child.close()
        base = next(iter(by_turns), None)
        for name, measured in times.items():
            results[name] |= {
                "median": statistics.median(measured), "best": min(measured),
                "speedup": statistics.median(b / t for b, t in zip(times[base], measured))}
        print(f"{options.model}, {'image' if options.image else 'patch'} {'x'.join(map(str, shape))}, "
              f"{options.rounds} rounds; speedup over {base}, labels and differences against torch-fp32")
        print(f"{'engine':22} {'open s':>8} {'first s':>8} {'median s':>9} {'best s':>8} {'speedup':>8} "
              f"{'max diff':>9} {'same label':>10} {'GPU MiB':>8}")
        for name, r in results.items():
            timed = (f"{r['median']:9.4f} {r['best']:8.4f} {r['speedup']:8.2f}" if "median" in r
                     else f"{'':9} {'':8} {'':8}")
            gpu = "" if r["gpu_bytes"] is None else f"{r['gpu_bytes'] >> 20}"
            print(f"{name:22} {r['open']:8.2f} {r['first']:8.2f} {timed} {r['difference']:9.1e} "
                  f"{r['same_label']:10.6f} {gpu:>8}")
        if options.json:
            pathlib.Path(options.json).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
