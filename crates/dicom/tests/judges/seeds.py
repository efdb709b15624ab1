"""Seeds for the fuzz targets, from the fixtures: `seeds.py FIXTURES CORPUS`.

CORPUS/dicom gets files, CORPUS/frame their compressed frames behind the four bytes that the target
takes first.
"""

import io
import pathlib
import sys
import zipfile
import zlib

import pydicom
from pydicom.encaps import generate_frames

SYNTAXES = ["1.2.840.10008.1.2.5", "1.2.840.10008.1.2.8.1", "1.2.840.10008.1.2.4.51",
            "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"]
LIKE = {"1.2.840.10008.1.2.4.50": 2, "1.2.840.10008.1.2.4.57": 3, "1.2.840.10008.1.2.4.81": 4,
        "1.2.840.10008.1.2.4.91": 5, "1.2.840.10008.1.2.4.201": 5, "1.2.840.10008.1.2.4.203": 5}


def main():
    fixtures, corpus = map(pathlib.Path, sys.argv[1:3])
    for group in ("dicom", "frame"):
        (corpus / group).mkdir(parents=True, exist_ok=True)
    for path in sorted(fixtures.glob("*/*.zip.z")):
        archive = zipfile.ZipFile(io.BytesIO(zlib.decompress(path.read_bytes())))
        name = archive.namelist()[-1]
        data = archive.read(name)
        (corpus / "dicom" / path.name.split(".")[0]).write_bytes(data)
        try:
            ds = pydicom.dcmread(io.BytesIO(data))
            syntax = str(ds.file_meta.TransferSyntaxUID)
            coding = SYNTAXES.index(syntax) if syntax in SYNTAXES else LIKE[syntax]
            frame = next(generate_frames(ds.PixelData, number_of_frames=int(ds.get("NumberOfFrames", 1))))
        except (AttributeError, KeyError, ValueError, pydicom.errors.InvalidDicomError):
            continue
        bits = (ds.BitsStored - 1) | 0x40 * ds.PixelRepresentation | 0x80 * (ds.BitsAllocated == 8)
        head = bytes([coding, ds.Rows - 1, ds.Columns - 1, bits])
        (corpus / "frame" / path.name.split(".")[0]).write_bytes(head + frame)


main()
