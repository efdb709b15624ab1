"""``python -m fastnnunet``: the program, which comes with the package."""

import os
import sys


def main():
    name = "fastnnunet.exe" if os.name == "nt" else "fastnnunet"
    program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bin", name)
    if not os.path.exists(program):
        sys.exit("error: this package was built without the program; bindings/python/wheel puts it in")
    if os.name == "nt":
        import subprocess

        sys.exit(subprocess.call([program, *sys.argv[1:]]))
    os.execv(program, [program, *sys.argv[1:]])


if __name__ == "__main__":
    main()
