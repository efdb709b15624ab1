"""Times SciPy and cc3d on the steps of postprocessing next to ours, on the phantom of benches/phantom.

    pip install numpy scipy connected-components-3d
    python benches/compare_postprocess.py [--built]

One run on one machine, one program after the other. SciPy works label by label inside bounding boxes,
which crumbs make large; it is timed on the first three labels, times twenty. cc3d labels all structures
in one call. Both use one thread, ours RAYON_NUM_THREADS. Results must be equal, SciPy's for its labels, or
this fails. `--built` uses the program as it is, without building it.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import time

import cc3d
import numpy as np
from scipy import ndimage

ROOT = pathlib.Path(__file__).parent.parent
PROGRAM = ROOT / "target/release/examples/bench_postprocess"
SHAPE, SPACING = (500, 512, 512), (1.2, 0.8, 0.8)
FULL = np.ones((3, 3, 3))
RECIPES = {
    "keep_largest": {"step": "keep_largest", "labels": "all"},
    "remove_small": {"step": "remove_small", "labels": "all", "min_mm3": 50},
    "fill_holes": {"step": "fill_holes", "labels": "all"},
    "close": {"step": "close", "labels": ["liver"], "radius_mm": 4},
}


SAMPLE, LABELS = 3, 60


def boxes(labels):
    return [(k + 1, box) for k, box in enumerate(ndimage.find_objects(labels)[:SAMPLE])]


def scipy_keep_largest(labels):
    for k, box in boxes(labels):
        mask = labels[box] == k
        named, count = ndimage.label(mask, FULL)
        sizes = np.bincount(named.ravel())
        sizes[0] = 0
        labels[box][mask & (sizes[named] < sizes.max())] = 0


def scipy_remove_small(labels):
    least = 50 / np.prod(SPACING)
    for k, box in boxes(labels):
        mask = labels[box] == k
        named, count = ndimage.label(mask, FULL)
        labels[box][mask & (np.bincount(named.ravel())[named] < least)] = 0


def scipy_fill_holes(labels):
    for k, box in boxes(labels):
        part = labels[box]
        part[ndimage.binary_fill_holes(part == k) & (part == 0)] = k


def scipy_close(labels):
    box = tuple(slice(max(s.start - r, 0), s.stop + r)
                for s, r in zip(ndimage.find_objects(labels)[0], (5, 7, 7)))
    part = labels[box]
    grown = ndimage.distance_transform_edt(part != 1, SPACING) <= 4 * (1 + 1e-6)
    closed = ndimage.distance_transform_edt(grown, SPACING) > 4 * (1 + 1e-6)
    part[closed & (part == 0)] = 1


def cc3d_components(labels):
    named, count = cc3d.connected_components(labels, connectivity=26, return_N=True)
    sizes = np.bincount(named.ravel(), minlength=count + 1)
    first = np.zeros(count + 1, labels.dtype)
    first[named.ravel()] = labels.ravel()
    return named, sizes, first


def cc3d_keep_largest(labels):
    named, sizes, of = cc3d_components(labels)
    largest = np.zeros(256, np.int64)
    np.maximum.at(largest, of, sizes)
    keep = sizes == largest[of]
    labels[~keep[named]] = 0


def cc3d_remove_small(labels):
    named, sizes, _ = cc3d_components(labels)
    labels[(sizes < 50 / np.prod(SPACING))[named]] = 0


def timed(work, labels):
    start = time.perf_counter()
    work(labels)
    return time.perf_counter() - start


def ours(*arguments):
    out = subprocess.run([PROGRAM, *map(str, arguments)], check=True, capture_output=True, text=True)
    return json.loads(out.stdout)


def main():
    if "--built" not in sys.argv:
        subprocess.run(["cargo", "build", "--release", "--no-default-features", "--example", "bench_postprocess"],
                       cwd=ROOT, check=True)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        ours("draw", folder / "labels.raw")
        labels = np.fromfile(folder / "labels.raw", np.uint8).reshape(SHAPE)
        result = ours("components")
        start = time.perf_counter()
        count = cc3d.connected_components(labels, connectivity=26, return_N=True)[1]
        peer = time.perf_counter() - start
        assert count == result["components"], (count, result)
        print(f"{result['runs']} runs, {count} components of 60 labels")
        print(f"{'step':28}{'ours s':>9}{'SciPy s':>10}{'cc3d s':>9}{'extra MB':>10}")
        print(f"{'components, as runs':28}{result['seconds']:9.3f}{'':10}{'':9}{result['extra_bytes'] / 1e6:10.0f}")
        print(f"{'components, as a volume':28}{result['seconds_painted']:9.3f}{'':10}{peer:9.2f}", flush=True)
        for name, step in RECIPES.items():
            recipe, out = folder / "recipe.json", folder / "out.raw"
            recipe.write_text(json.dumps({"steps": [step]}))
            mine = ours(recipe, out)
            got = np.fromfile(out, np.uint8).reshape(SHAPE)
            row = []
            for peer in ("scipy", "cc3d"):
                work = globals().get(f"{peer}_{name}")
                if work is None:
                    row.append("")
                    continue
                expected = labels.copy()
                sampled = peer == "scipy" and step["labels"] == "all"
                row.append(f"{timed(work, expected) * (LABELS / SAMPLE if sampled else 1):.2f}")
                for k in range(1, SAMPLE + 1 if sampled else LABELS + 1):
                    same = np.array_equal(got == k, expected == k)
                    assert same, f"{name}: {peer} differs in label {k}"
            print(f"{name:28}{mine['seconds']:9.3f}{row[0]:>10}{row[1]:>9}{mine['extra_bytes'] / 1e6:10.0f}", flush=True)
        mine = ours("total")
        print(f"{'whole recipe total':28}{mine['seconds']:9.3f}{'':19}{mine['extra_bytes'] / 1e6:10.0f}")
        for step in mine["steps"]:
            print(f"    {step['step']:24}{step['voxels_changed']:>12} voxels changed")


main()
