"""Times our CPU engine against ONNX Runtime, OpenVINO and PyTorch on the same network.

    cargo build --release --no-default-features --example bench_engine
    python benches/peers/compare.py student8 --threads 2 --rounds 7

Same ONNX, same input, same number of threads, in one run: each round times every engine once, in
turn, so that a busy machine slows all of them. Each engine lives in a process of its own, which
also gives its peak memory. Prints medians, fastest runs, ratios to ONNX Runtime (medians of the
rounds' ratios) and agreement with its logits. Weights are seeded; nothing is downloaded.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
# name: features per stage, classes, patch
CASES = {
    "student8": ([8, 16, 32, 64, 80], 61, (160, 96, 96)),
    "student16": ([16, 32, 64, 128, 160], 61, (160, 96, 96)),
    "teacher": ([32, 64, 128, 256, 320], 61, (128, 128, 128)),
}


def network(case):
    """The case's network in PyTorch, with seeded weights."""
    import torch
    from dynamic_network_architectures.architectures.unet import PlainConvUNet
    from torch import nn

    features, classes, _ = CASES[case]
    stages = len(features)
    torch.manual_seed(0)
    return PlainConvUNet(
        1, stages, features, nn.Conv3d, [[3] * 3] * stages, [[1] * 3] + [[2] * 3] * (stages - 1), [2] * stages,
        classes, [2] * (stages - 1), conv_bias=True, norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True}, nonlin=nn.LeakyReLU, nonlin_kwargs={"inplace": True}).eval()


def export(case, path):
    import warnings

    import torch

    warnings.simplefilter("ignore")
    axes = {0: "batch", 2: "depth", 3: "height", 4: "width"}
    torch.onnx.export(network(case), torch.zeros(1, 1, 32, 32, 32), path, opset_version=17, dynamo=False,
                      input_names=["input"], output_names=["output"], dynamic_axes={"input": axes, "output": axes})


def peer(kind, case, folder, threads):
    """Child process: loads one engine, then runs it once per line of standard input."""
    import time

    import numpy as np

    folder = pathlib.Path(folder)
    x = np.load(folder / "input.npy")
    model = str(folder / "model.onnx")
    if kind == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        run = lambda: session.run(None, {"input": x})[0]
    elif kind.startswith("openvino"):
        import openvino

        core = openvino.Core()
        graph = core.read_model(model)
        graph.reshape(x.shape)
        compiled = core.compile_model(graph, "CPU", {
            "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": kind.split("-")[1], "PERFORMANCE_HINT": "LATENCY"})
        request = compiled.create_infer_request()
        run = lambda: request.infer({0: x})[0]
    else:
        import torch

        torch.set_num_threads(threads)
        net = network(case).to(memory_format=torch.channels_last_3d)
        tensor = torch.from_numpy(x).to(memory_format=torch.channels_last_3d)
        bf16 = kind == "torch-bf16"

        def run():
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                return net(tensor)

    answer = run()
    answer = answer if isinstance(answer, np.ndarray) else answer.float().contiguous().numpy()
    np.asarray(answer, dtype=np.float32).tofile(folder / f"{kind}.raw")
    del answer
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        run()
        print(time.perf_counter() - start, flush=True)


def child(name, command):
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                               stderr=subprocess.PIPE)
    if process.stdout.readline().strip() != "ready":
        print(f"{name}: not available ({process.stderr.read().strip().splitlines()[-1:]})", file=sys.stderr)
        return None
    return process


def peak_bytes(process):
    for line in pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--engine", default=str(ROOT / "target/release/examples/bench_engine"))
    parser.add_argument("--isa", nargs="*", default=["amx/int8", "amx/bf16", "avx512-vnni/int8", "avx512-bf16/bf16", "avx512", "avx2-vnni/int8",
                                                   "avx2-vnni-evex/int8", "avx2"],
                        help="levels of our engine, with /bf16 or /int8 for that precision; one that the CPU lacks is left out")
    parser.add_argument("--peers", nargs="*",
                        default=["onnxruntime", "openvino-f32", "openvino-bf16", "torch-f32", "torch-bf16"])
    parser.add_argument("--json", help="also write results here")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        peer(options.peer, options.case, options.folder, options.threads)
        return

    import numpy as np

    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    _, classes, patch = CASES[options.case]
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        export(options.case, str(folder / "model.onnx"))
        rng = np.random.default_rng(0)
        x = rng.standard_normal((1, 1, *patch)).astype(np.float32)
        for axis in (2, 3, 4):  # smooth, as a scan is
            x = (x + np.roll(x, 1, axis) + np.roll(x, -1, axis)) / np.sqrt(3, dtype=np.float32)
        np.save(folder / "input.npy", x)
        x.tofile(folder / "input.raw")
        children = {}
        for name in options.peers:
            children[name] = child(name, [sys.executable, __file__, options.case, "--peer", name, "--folder",
                                          str(folder), "--threads", str(options.threads)])
        for level in options.isa:
            isa, _, precision = level.partition("/")
            name = f"ours {isa} {precision or 'f32'}"
            children[name] = child(name, [
                options.engine, str(folder / "model.onnx"), *map(str, patch), "--isa", isa, "--precision",
                precision or "f32", "--threads", str(options.threads), "--input", str(folder / "input.raw"),
                "--output", str(folder / f"{name}.raw"), "--serve"])
        children = {name: process for name, process in children.items() if process}
        times = {name: [] for name in children}
        for _ in range(options.rounds):
            for name, process in children.items():
                process.stdin.write("run\n")
                process.stdin.flush()
                times[name].append(float(process.stdout.readline()))
        base = "onnxruntime" if "onnxruntime" in children else next(iter(children))
        shape = (classes, *patch)
        reference = np.fromfile(folder / f"{base}.raw", np.float32).reshape(shape)
        labels = reference.argmax(0)
        results = {}
        for name, process in children.items():
            answer = np.fromfile(folder / f"{name}.raw", np.float32).reshape(shape)
            results[name] = {
                "median": statistics.median(times[name]), "best": min(times[name]),
                "speedup": statistics.median(b / t for b, t in zip(times[base], times[name])),
                "difference": float(np.abs(answer - reference).max()),
                "same_label": float((answer.argmax(0) == labels).mean()),
                "peak_bytes": peak_bytes(process)}
            process.stdin.close()
            process.wait()
        print(f"{options.case}, {options.threads} threads, {options.rounds} rounds; speedup over {base}")
        print(f"{'engine':24} {'median s':>9} {'best s':>9} {'speedup':>8} {'max diff':>9} {'same label':>10} {'peak MB':>8}")
        for name, r in results.items():
            print(f"{name:24} {r['median']:9.3f} {r['best']:9.3f} {r['speedup']:8.2f} {r['difference']:9.1e} "
                  f"{r['same_label']:10.6f} {r['peak_bytes'] / 1e6:8.0f}")
        if options.json:
            pathlib.Path(options.json).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
