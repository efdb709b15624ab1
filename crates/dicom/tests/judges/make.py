"""Writes the regular and odd series, one folder per kind.

    make.py OUT [--slices FOLDER] [--only PREFIX]

Of a phantom, or of the real slices in FOLDER. Needs dcmtk's programs.
"""

import argparse
import json
import pathlib

import base
import odd
import regular


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--slices", type=pathlib.Path)
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    slices = base.of_slices(args.slices) if args.slices else base.of_phantom()
    for group, kinds in (("regular", regular.KINDS), ("odd", odd.KINDS)):
        about = {}
        for name, (make, expected) in kinds.items():
            if name.startswith(args.only):
                folder = args.out / group / name
                folder.mkdir(parents=True)
                make(base.copies(slices), folder)
                about[name] = expected
        (args.out / group).mkdir(parents=True, exist_ok=True)
        (args.out / f"{group}.json").write_text(json.dumps(about, indent=1))


main()
