"""Writes the golden arrays of every stage, or of the stages named on the command line.

    python generate.py [orient crop normalize resample tile postprocess export network case]
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))


def main(names):
    import geometry
    import intensity
    import postprocessing
    import resampling
    import tiling
    steps = {"orient": geometry.orient, "crop": geometry.crop, "normalize": intensity.normalize,
             "resample": resampling.resample, "tile": tiling.tile,
             "postprocess": postprocessing.postprocess}
    if not names or {"export", "network", "case"} & set(names):
        import cases
        import exporting
        import network
        steps |= {"export": exporting.export, "network": network.write, "case": cases.case}
    for name in names or steps:
        steps[name]()


if __name__ == "__main__":
    main(sys.argv[1:])
