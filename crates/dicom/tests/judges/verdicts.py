"""Checks the verdicts of odd series; with `--table`, prints them beside SimpleITK's and dcm2niix's.

    verdicts.py KINDS PROGRAM_SERIES PROGRAM_CONVERT [--table]
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile

import nibabel
import SimpleITK


def itk(folder):
    """What SimpleITK makes of a folder."""
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    found = []
    for series in SimpleITK.ImageSeriesReader.GetGDCMSeriesIDs(str(folder)):
        names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series)
        try:
            image = SimpleITK.ReadImage(names if len(names) > 1 else names[0])
            found.append(volume(image.GetSize(), image.GetSpacing()[-1]))
        except RuntimeError:
            found.append("error")
    return ", ".join(found) or "no series"


def volume(size, spacing):
    return "x".join(map(str, size)) + f" at {spacing:.2f} mm"


def dcm2niix(folder):
    with tempfile.TemporaryDirectory() as out:
        program = pathlib.Path(sys.executable).parent / "dcm2niix"
        subprocess.run([program, "-o", out, "-f", "%s_%r", str(folder)], capture_output=True)
        found = []
        for path in sorted(pathlib.Path(out).glob("*.nii")):
            image = nibabel.load(path)
            mark = re.search(r"(Tilt|Eq|ROI\d+)", path.name)
            found.append(volume(image.shape, image.header.get_zooms()[2])
                         + (f" ({mark[0]})" if mark else ""))
    return ", ".join(found) or "nothing"


def ours(program, folder):
    done = subprocess.run([program, str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    catalog = json.loads(done.stdout)
    series = [s for study in catalog["studies"] for s in study["series"]]
    return series, catalog["damaged_files"]


def main():
    kinds, series_program, convert = pathlib.Path(sys.argv[1]), *sys.argv[2:4]
    table = "--table" in sys.argv
    failed = []
    for name, about in json.loads((kinds / "odd.json").read_text()).items():
        folder = kinds / "odd" / name
        series, damaged = ours(series_program, folder)
        verdicts = sorted(s["verdict"] for s in series)
        said = [note for s in series for note in s["notes"]] + damaged
        if damaged and not series:
            verdicts = ["damaged"]
        right = verdicts == sorted(about["verdicts"])
        right &= not about["says"] or re.search(about["says"], " ".join(said)) is not None
        text = json.dumps(series) + " ".join(said)
        assert not re.search("Doe|Jane|Roe|Moe", text), f"{name}: a name in {text}"
        if "load" in about:
            done = subprocess.run([convert, str(folder), "/dev/null"], capture_output=True, text=True)
            right &= done.returncode != 0 and about["load"] in done.stderr
        if not right:
            failed.append(name)
        if table:
            words = "; ".join(dict.fromkeys(said)) or about.get("load", "")
            shapes = ", ".join(volume(s["size"], s["spacing"][2]) for s in series if s["size"])
            print(f"| {name.replace('_', ' ')} | {', '.join(verdicts)}: {words} | {shapes} "
                  f"| {itk(folder)} | {dcm2niix(folder)} |")
        else:
            print(f"{name}: {', '.join(verdicts)}: {said}{'' if right else ': FAILED, expected ' + str(about)}")
    print(f"{len(failed)} failed: {failed}", file=sys.stderr)
    sys.exit(bool(failed))


main()
