"""What `fastnnunet convert` writes, judged by ONNX's checker and ONNX Runtime.

    python check_onnx.py PROGRAM        (packages: reference/README.md)

Every folder under folders/ is converted with --verify; the network has to pass the full check
and to give PyTorch's logits in ONNX Runtime, also for two patches at once.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime


def main(program):
    worst = 0.0
    with tempfile.TemporaryDirectory() as out:
        for folder in sorted((Path(__file__).parent / "folders").iterdir()):
            fold = ["--fold", "all"] if (folder / "fold_all").exists() else []
            subprocess.run([program, "convert", folder, "-o", out, "--name", "case", "--verify", "--overwrite", *fold],
                           check=True, stdout=subprocess.DEVNULL)
            path = Path(out) / "case.onnx"
            onnx.checker.check_model(str(path), full_check=True)
            model = onnx.load(path)
            assert model.opset_import[0].version == 17
            patch, logits = np.load(folder / "input.npy"), np.load(folder / "logits.npy")
            session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            (found,) = session.run(["output"], {"input": np.stack([patch, patch[..., ::-1]])})
            off = np.abs(found[0] - logits).max() / np.abs(logits).max()
            worst = max(worst, off)
            print(f"{folder.name:50} off by {off:.1e} of the largest logit")
    assert worst < 1e-4, worst


if __name__ == "__main__":
    main(sys.argv[1])
