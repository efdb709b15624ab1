"""What NVIDIA's compiler makes of the kernels that .ci/cuda left in target/cuda/kernels.

    target/cuda/venv/bin/pip install nvidia-cuda-nvdisasm==13.5.37
    target/cuda/venv/bin/python tests/cuda/loops.py NAME [ARCHITECTURE]

For each kernel whose name begins with NAME, compiled for ARCHITECTURE (default sm_80): its registers, and of
the innermost loop with the most multiplications the instructions, those that multiply and add (FFMA) and the
loads from memory, those of 16 bytes apart.
"""

import ctypes
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import nvidia

BASE = Path(nvidia.__path__[0])
KERNELS = Path(__file__).parents[2] / "target/cuda/kernels"


def ptx(source, architecture):
    nvrtc = ctypes.CDLL(str(BASE / "cuda_nvrtc/lib/libnvrtc.so.12"))
    options = [f"--gpu-architecture={architecture.replace('sm', 'compute')}",
               f"--include-path={KERNELS.parent}/toolkit/include"]
    options = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None)
    if error := nvrtc.nvrtcCompileProgram(program, len(options), options):
        sys.exit(f"NVRTC ended with error {error}")
    nvrtc.nvrtcGetPTXSize(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetPTX(program, text)
    return text.value.decode()


def assemble(text, architecture):
    """Registers, and the machine code as nvdisasm writes it."""
    with tempfile.TemporaryDirectory() as folder:
        source, binary = Path(folder, "kernel.ptx"), Path(folder, "kernel.cubin")
        source.write_text(text)
        ptxas = [BASE / "cuda_nvcc/bin/ptxas", "-v", "-arch", architecture, source, "-o", binary]
        said = subprocess.run(ptxas, capture_output=True, text=True, check=True).stderr
        nvdisasm = next(BASE.glob("*/bin/nvdisasm"))
        code = subprocess.run([nvdisasm, "-c", binary], capture_output=True, text=True, check=True).stdout
    return int(re.search(r"Used (\d+) registers", said)[1]), code


def innermost_loops(code):
    """Instructions of each loop without another inside: from a label to a jump back to it."""
    labels, instructions, ranges = {}, [], []
    for line in code.splitlines():
        if label := re.match(r"\s*(\.L_x_\d+):", line):
            labels[label[1]] = len(instructions)
        elif found := re.search(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\d+ )?\s*(.*?);", line):
            instructions.append(found[1])
            jump = re.search(r"BRA.*(\.L_x_\d+)", found[1])
            if jump and jump[1] in labels:
                ranges.append((labels[jump[1]], len(instructions)))
    for start, end in ranges:
        if not any(start <= s and e <= end and (s, e) != (start, end) for s, e in ranges):
            yield instructions[start:end]


def main():
    name, architecture = (sys.argv[1:] + ["sm_80"])[:2]
    print("kernel                                    registers  loop  FFMA  loads  of 16 bytes")
    for path in sorted(KERNELS.glob("*.cu")):
        source = path.read_text()
        kernel = re.search(r"__launch_bounds__\([0-9, ]+\)\s*(\w+)", source)[1]
        if not kernel.startswith(name):
            continue
        registers, code = assemble(ptx(source, architecture), architecture)
        count = lambda loop, start: sum(i.startswith(start) for i in loop)
        found = max(innermost_loops(code), key=lambda loop: count(loop, "FFMA"), default=[])
        wide = sum(i.startswith("LDG") and ".128" in i for i in found)
        print(f"{kernel:42} {registers:8} {len(found):5} {count(found, 'FFMA'):5} "
              f"{count(found, 'LDG') - wide:6} {wide:6}")


if __name__ == "__main__":
    main()
