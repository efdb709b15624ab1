"""What every stage shares: where files go, how arrays and indexes are written, seeded noise."""

import json
import os
from pathlib import Path

# nnU-Net only warns about these when unset; nothing is read from or written to them here.
for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
    os.environ.setdefault(name, "unused")

import numpy as np
from scipy.ndimage import gaussian_filter

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


class Stage:
    """One folder of arrays and its index.json."""

    def __init__(self, name):
        self.name = name
        self.folder = HERE / name
        self.folder.mkdir(exist_ok=True)
        for old in self.folder.iterdir():
            old.unlink()
        self.index = {"stage": name}

    def save(self, name, array):
        """Writes `<name>.npy`, little endian and C ordered, and returns the file name."""
        array = np.ascontiguousarray(array)
        assert array.dtype in (np.float32, np.int16, np.int8, np.uint8), array.dtype
        assert array.dtype.byteorder in "=|<"
        np.save(self.folder / f"{name}.npy", array)
        return f"{name}.npy"

    def add(self, section, **entry):
        self.index.setdefault(section, []).append(plain(entry))

    def close(self):
        write_json(self.folder / "index.json", self.index)
        size = sum(f.stat().st_size for f in self.folder.iterdir())
        print(f"{self.name}: {len(list(self.folder.iterdir()))} files, {size / 1000:.0f} kB")


def plain(value):
    """NumPy scalars, arrays and tuples as the numbers and lists JSON knows."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(v) for v in value]
    return value.item() if isinstance(value, np.generic) else value


def write_json(path, value):
    """Objects are spread over lines, lists of numbers stay on one."""

    def text(v, pad):
        inner = pad + "  "
        if isinstance(v, dict) and v:
            rows = [f"{inner}{json.dumps(k)}: {text(x, inner)}" for k, x in v.items()]
            return "{\n" + ",\n".join(rows) + f"\n{pad}}}"
        if isinstance(v, list) and any(isinstance(x, dict) for x in v):
            flat = [json.dumps(x) for x in v]
            rows = [f"{inner}{f if len(f) < 180 else text(x, inner)}" for f, x in zip(flat, v)]
            return "[\n" + ",\n".join(rows) + f"\n{pad}]"
        return json.dumps(v)

    path.write_text(text(plain(value), "") + "\n", newline="\n")


def noise(shape, seed):
    """Standard normal f32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def smooth(shape, seed, sigma):
    """Noise blurred over the last three axes, back to unit variance per channel."""
    field = np.random.default_rng(seed).standard_normal(shape)
    sigmas = [0] * (len(shape) - 3) + [sigma] * 3
    field = gaussian_filter(field, sigmas, mode="nearest")
    axes = tuple(range(len(shape) - 3, len(shape)))
    return (field - field.mean(axes, keepdims=True)) / field.std(axes, keepdims=True)
