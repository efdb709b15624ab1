"""Regular series, one folder per kind: what a scanner or an archive writes."""

import shutil
import subprocess

import imagecodecs
import numpy as np
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.uid import (DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian,
                         ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless)

import base

KINDS = {}


def kind(name, **about):
    """Registers a maker of one kind; `lossy` ones may be off by a stored unit."""
    def register(make):
        KINDS[name] = (make, about)
        return make
    return register


def encapsulated(slices, syntax, encode, extended=False):
    for ds in slices:
        frame = encode(np.ascontiguousarray(base.pixels(ds)))
        if extended:
            whole, offsets, lengths = encapsulate_extended([frame])
            ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths = offsets, lengths
            ds.PixelData = whole
        else:
            ds.PixelData = encapsulate([frame])
        ds["PixelData"].VR = "OB"
        ds["PixelData"].is_undefined_length = True
        ds.file_meta.TransferSyntaxUID = syntax
    return slices


def recoded(slices, folder, command, *arguments):
    """Slices through a program of dcmtk."""
    plain = folder / "plain"
    base.save(plain, slices)
    for path in sorted(plain.iterdir()):
        subprocess.run([command, *arguments, str(path), str(folder / path.name)], check=True,
                       stderr=subprocess.DEVNULL)
    shutil.rmtree(plain)


@kind("explicit_little")
def _(slices, folder):
    base.save(folder, slices)


@kind("implicit_little")
def _(slices, folder):
    for ds in slices:
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    base.save(folder, slices)


@kind("explicit_big")
def _(slices, folder):
    for ds in slices:
        ds.PixelData = base.pixels(ds).astype(">u2").tobytes()
        ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    base.save(folder, slices)


@kind("deflated")
def _(slices, folder):
    for ds in slices:
        ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    base.save(folder, slices)


@kind("rle")
def _(slices, folder):
    for ds in slices:
        ds.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    base.save(folder, slices)


@kind("rle_dcmtk")
def _(slices, folder):
    recoded(slices, folder, "dcmcrle")


@kind("jpeg_lossless_sv1")
def _(slices, folder):
    recoded(slices, folder, "dcmcjpeg", "+e1")


for predictor in range(1, 8):
    @kind(f"jpeg_lossless_p{predictor}")
    def _(slices, folder, predictor=predictor):
        recoded(slices, folder, "dcmcjpeg", "+el", "+sv", str(predictor))


@kind("jpeg_lossless_fragments")
def _(slices, folder):
    recoded(slices, folder, "dcmcjpeg", "+e1", "+fs", "1")


@kind("jpeg_lossless_imagecodecs")
def _(slices, folder):
    base.save(folder, encapsulated(slices, "1.2.840.10008.1.2.4.70", imagecodecs.ljpeg_encode))


@kind("jpegls_dcmtk")
def _(slices, folder):
    recoded(slices, folder, "dcmcjpls", "+el")


@kind("jpegls_dcmtk_cooked")
def _(slices, folder):
    recoded(slices, folder, "dcmcjpls", "+el", "+pc", "+t1", "9", "+t2", "20", "+t3", "60", "+rs", "31")


@kind("jpegls_charls")
def _(slices, folder):
    base.save(folder, encapsulated(slices, "1.2.840.10008.1.2.4.80", imagecodecs.jpegls_encode))


def jpeg2000(reversible, level=None):
    return lambda image: imagecodecs.jpeg2k_encode(
        image, level=level, codecformat="j2k", reversible=reversible, resolutions=3)


@kind("jpeg2000")
def _(slices, folder):
    base.save(folder, encapsulated(slices, "1.2.840.10008.1.2.4.90", jpeg2000(True)))


@kind("jpeg2000_extended_offsets")
def _(slices, folder):
    base.save(folder, encapsulated(slices, "1.2.840.10008.1.2.4.90", jpeg2000(True), extended=True))


@kind("htj2k")
def _(slices, folder):
    encode = lambda image: imagecodecs.htj2k_encode(image, reversible=True)
    base.save(folder, encapsulated(slices, "1.2.840.10008.1.2.4.201", encode))


@kind("jpeg2000_lossy", lossy=True)
def _(slices, folder):
    base.save(folder, encapsulated(slices, "1.2.840.10008.1.2.4.91", jpeg2000(False, 55)))


@kind("htj2k_lossy", lossy=True)
def _(slices, folder):
    encode = lambda image: imagecodecs.htj2k_encode(image, level=0.002, reversible=False)
    base.save(folder, encapsulated(slices, "1.2.840.10008.1.2.4.203", encode))


@kind("jpegls_near", lossy=True)
def _(slices, folder):
    recoded(slices, folder, "dcmcjpls", "+en", "+md", "3", "+un")


@kind("jpegls_near_charls", lossy=True)
def _(slices, folder):
    encode = lambda image: imagecodecs.jpegls_encode(image, level=7)
    base.save(folder, encapsulated(slices, "1.2.840.10008.1.2.4.81", encode))


@kind("jpeg_extended_12", lossy=True)
def _(slices, folder):
    recoded(slices, folder, "dcmcjpeg", "+ee", "+un")


def eight_bits(slices):
    for ds in slices:
        ds.PixelData = (base.pixels(ds) >> 4).astype(np.uint8).tobytes()
        ds.BitsAllocated = ds.BitsStored = 8
        ds.HighBit = 7
        ds.RescaleSlope = "16"
    return slices


@kind("bits_8")
def _(slices, folder):
    base.save(folder, eight_bits(slices))


@kind("jpeg_baseline_8", lossy=True)
def _(slices, folder):
    recoded(eight_bits(slices), folder, "dcmcjpeg", "+eb", "+un")


@kind("jpeg_extended_8", lossy=True)
def _(slices, folder):
    recoded(eight_bits(slices), folder, "dcmcjpeg", "+ee", "+un")


def signed(slices, bits):
    """Hounsfield units as they are."""
    for ds in slices:
        hu = base.pixels(ds).astype(np.int32) - 1024
        ds.PixelData = (hu & ((1 << bits) - 1)).astype("<u2").tobytes()
        ds.PixelRepresentation, ds.BitsStored, ds.HighBit = 1, bits, bits - 1
        ds.RescaleIntercept = "0"
    return slices


@kind("signed_16")
def _(slices, folder):
    base.save(folder, signed(slices, 16))


@kind("signed_13_of_16")
def _(slices, folder):
    base.save(folder, signed(slices, 13))


@kind("signed_jpeg_lossless")
def _(slices, folder):
    recoded(signed(slices, 16), folder, "dcmcjpeg", "+e1")


@kind("signed_jpegls")
def _(slices, folder):
    recoded(signed(slices, 16), folder, "dcmcjpls", "+el")


@kind("signed_rle")
def _(slices, folder):
    recoded(signed(slices, 16), folder, "dcmcrle")


@kind("signed_jpeg2000")
def _(slices, folder):
    encode = lambda image: jpeg2000(True)(image.view(np.int16))
    base.save(folder, encapsulated(signed(slices, 16), "1.2.840.10008.1.2.4.90", encode))


@kind("overlay_in_high_bits")
def _(slices, folder):
    for ds in slices:
        ds.PixelData = (base.pixels(ds) | 0xA000).astype("<u2").tobytes()
    base.save(folder, slices)


@kind("padding")
def _(slices, folder):
    for ds in signed(slices, 16):
        image = np.array(base.pixels(ds))
        image[:2] = np.int16(-2000).view(np.uint16)
        ds.PixelData = image.tobytes()
        ds.add_new("PixelPaddingValue", "SS", -2000)
    base.save(folder, slices)


@kind("rescale_per_slice")
def _(slices, folder):
    for k, ds in enumerate(slices):
        ds.RescaleSlope, ds.RescaleIntercept = str(1 + k / 8), str(-1024 - k)
    base.save(folder, slices)


@kind("rescale_fraction")
def _(slices, folder):
    for ds in slices:
        ds.RescaleSlope, ds.RescaleIntercept = "0.7629394531", "-1024.5"
    base.save(folder, slices)


@kind("enhanced")
def _(slices, folder):
    base.save(folder, [base.enhanced(slices)])


@kind("enhanced_jpeg2000")
def _(slices, folder):
    ds = base.enhanced(slices)
    ds.PixelData = encapsulate([jpeg2000(True)(np.ascontiguousarray(base.pixels(s))) for s in slices])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.90"
    base.save(folder, [ds])


@kind("legacy_enhanced")
def _(slices, folder):
    base.save(folder, [base.enhanced(slices, legacy=True)])


def turned(slices, orientation):
    """The same slices lying in other planes."""
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    normal = np.cross(row, column)
    for k, ds in enumerate(slices):
        position = np.array([-30.0, 40.0, 500.0]) + 2 * k * normal
        ds.ImageOrientationPatient = [f"{v:.12g}" for v in orientation]
        ds.ImagePositionPatient = [f"{v:.12g}" for v in position]
        ds.pop("SliceLocation", None)
    return slices


PLANES = {
    "sagittal": [0, 1, 0, 0, 0, -1],
    "coronal": [1, 0, 0, 0, 0, -1],
    "prone": [-1, 0, 0, 0, -1, 0],
    "feet_first": [-1, 0, 0, 0, 1, 0],
    "oblique": [0.9396926208, 0.3420201433, 0, -0.2961981327, 0.8137976813, -0.5],
}
for name, orientation in PLANES.items():
    @kind(name)
    def _(slices, folder, orientation=orientation):
        base.save(folder, turned(slices, orientation))


@kind("order_of_names_and_numbers_reversed")
def _(slices, folder):
    for k, ds in enumerate(reversed(slices)):
        ds.InstanceNumber = str(k + 1)
    base.save(folder, slices[::-1])


@kind("not_square")
def _(slices, folder):
    for ds in slices:
        ds.PixelSpacing = ["1.5", "0.75"]
    base.save(folder, slices)


@kind("positions_of_one_decimal")
def _(slices, folder):
    for k, ds in enumerate(slices):
        ds.ImagePositionPatient[2] = f"{-100 + 0.625 * k:.1f}"
    base.save(folder, slices)
