"""Odd series, one folder per kind, each with the verdict it must get.

The verdict is `suitable`, `corrected` or `refused`; of several parts or series, one for each. `says`
is part of what a correction or refusal says.
"""

import copy
import shutil
import subprocess
import zipfile

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

import base
import regular

KINDS = {}


def kind(name, *verdicts, says="", **about):
    def register(make):
        KINDS[name] = (make, {"verdicts": list(verdicts), "says": says, **about})
        return make
    return register


def localizer(slices, count=1):
    """Views from the front and the side."""
    views = base.copies(slices[:count], "localizer")
    for ds in views:
        ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        ds.ImageOrientationPatient = ["1", "0", "0", "0", "0", "-1"]
        ds.AcquisitionNumber = "0"
    return views


# What else lies in the folder.

@kind("localizer_in_series", "corrected", says="LOCALIZER")
def _(slices, folder):
    base.save(folder, localizer(slices, 2) + slices)


@kind("localizer_not_named_so", "corrected", says="another orientation")
def _(slices, folder):
    views = localizer(slices)
    for ds in views:
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    base.save(folder, views + slices)


@kind("localizer_series_beside", "suitable", "refused", says="LOCALIZER")
def _(slices, folder):
    base.save(folder, base.another_series(localizer(slices, 2), "scout") + slices)


@kind("two_series", "suitable", "suitable")
def _(slices, folder):
    base.save(folder, slices + base.another_series(slices, "second"))


@kind("junk_and_index", "suitable")
def _(slices, folder):
    base.save(folder / "deep" / "er", slices, name="I{}")
    (folder / "empty").write_bytes(b"")
    (folder / "notes.txt").write_text("no image at all, but some text of a certain length " * 9)
    (folder / "picture.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(200))
    directory = Dataset()
    directory.SOPClassUID, directory.SOPInstanceUID = "1.2.840.10008.1.3.10", base.uid("index")
    directory.FileSetID = "X"
    directory.DirectoryRecordSequence = Sequence()
    pydicom.dcmwrite(folder / "DICOMDIR", base.with_meta(directory), enforce_file_format=True)


@kind("zip", "suitable", archive=True)
def _(slices, folder):
    base.save(folder / "inside", slices)
    with zipfile.ZipFile(folder / "study.zip", "w") as archive:
        for path in sorted((folder / "inside").iterdir()):
            # A name that would lead out of the folder, were it taken for a path.
            info = zipfile.ZipInfo(f"../{path.name}", (2024, 1, 2, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, path.read_bytes())
    shutil.rmtree(folder / "inside")


@kind("pdf_beside", "suitable", "refused", says="document")
def _(slices, folder):
    ds = base.header(1, 1, 1)
    for name in ("Rows", "Columns", "PixelSpacing", "ImageOrientationPatient", "SamplesPerPixel"):
        delattr(ds, name)
    ds.SOPClassUID, ds.Modality = "1.2.840.10008.5.1.4.1.1.104.1", "DOC"
    ds.SOPInstanceUID, ds.SeriesInstanceUID = base.uid("pdf"), base.uid("pdf series")
    ds.MIMETypeOfEncapsulatedDocument = "application/pdf"
    ds.EncapsulatedDocument = b"%PDF-1.4 nothing"
    base.save(folder, slices + [base.with_meta(ds)])


@kind("report_in_series", "corrected", says="object without pixels")
def _(slices, folder):
    ds = copy.deepcopy(slices[0])
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.22"
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = base.uid("report")
    del ds.PixelData
    base.save(folder, slices + [ds])


@kind("two_studies", "suitable", "suitable")
def _(slices, folder):
    others = base.another_series(slices, "other")
    for ds in others:
        ds.StudyInstanceUID, ds.PatientName = base.uid("other study"), "Moe^Joe"
    base.save(folder, slices + others)


# Several stacks under one UID.

@kind("two_acquisitions_in_one_place", "corrected", "corrected", says="another acquisition")
def _(slices, folder):
    others = base.copies(slices, "again")
    for k, ds in enumerate(others):
        ds.AcquisitionNumber, ds.InstanceNumber = "2", str(100 + k)
        ds.PixelData = (base.pixels(ds) // 2).astype("<u2").tobytes()
    base.save(folder, slices + others)


@kind("two_acquisitions_between_each_other", "corrected", "corrected", says="another acquisition")
def _(slices, folder):
    for k, ds in enumerate(slices):
        ds.AcquisitionNumber = str(1 + k % 2)
    base.save(folder, slices)


@kind("acquisitions_in_steps", "suitable")
def _(slices, folder):
    for k, ds in enumerate(slices):
        ds.AcquisitionNumber = str(1 + k // 2)
    base.save(folder, slices)


@kind("two_kernels", "corrected", "corrected", says="kernel")
def _(slices, folder):
    others = base.copies(slices, "sharp")
    for ds in others:
        ds.ConvolutionKernel = "B70f"
        ds.ImagePositionPatient[2] = str(float(ds.ImagePositionPatient[2]) + 1)
    base.save(folder, slices + others)


@kind("thin_and_thick_slices", "corrected", "corrected", says="another acquisition")
def _(slices, folder):
    others = base.copies(slices, "thick")
    for ds in others:
        ds.SliceThickness = "5"
        ds.ImagePositionPatient[2] = str(float(ds.ImagePositionPatient[2]) + 1)
    base.save(folder, slices + others)


@kind("phases_by_time", "corrected", "corrected", says="another acquisition")
def _(slices, folder):
    others = base.copies(slices, "late")
    for k, ds in enumerate(slices + others):
        ds.AcquisitionTime = "100000" if k < len(slices) else "100130"
    for ds in others:
        ds.PixelData = (base.pixels(ds) // 2).astype("<u2").tobytes()
    base.save(folder, slices + others)


@kind("axial_and_coronal", "corrected", "corrected", says="geometry")
def _(slices, folder):
    others = regular.turned(base.copies(slices, "coronal"), regular.PLANES["coronal"])
    base.save(folder, slices + others)


@kind("two_matrices", "corrected", "corrected", says="geometry")
def _(slices, folder):
    for ds in slices[len(slices) // 2:]:
        image = base.pixels(ds)[::2, ::2]
        ds.Rows, ds.Columns = image.shape
        ds.PixelData = image.tobytes()
    base.save(folder, slices)


@kind("two_pixel_spacings", "corrected", "corrected", says="geometry")
def _(slices, folder):
    for ds in slices[len(slices) // 2:]:
        ds.PixelSpacing = ["0.5", "0.5"]
    base.save(folder, slices)


@kind("last_slice_of_another_matrix", "corrected", says="another matrix or pixel spacing")
def _(slices, folder):
    image = base.pixels(slices[-1])[:-2]
    slices[-1].Rows, slices[-1].Columns = image.shape
    slices[-1].PixelData = image.tobytes()
    base.save(folder, slices)


@kind("middle_slice_of_another_matrix", "refused", says="missing")
def _(slices, folder):
    odd = slices[len(slices) // 2]
    image = base.pixels(odd)[:-2]
    odd.Rows, odd.Columns = image.shape
    odd.PixelData = image.tobytes()
    base.save(folder, slices)


@kind("two_frames_of_reference", "corrected", "corrected", says="geometry")
def _(slices, folder):
    for ds in slices[len(slices) // 2:]:
        ds.FrameOfReferenceUID = base.uid("another frame of reference")
    base.save(folder, slices)


# Slices twice, missing, uneven.

@kind("file_twice", "corrected", says="there twice")
def _(slices, folder):
    base.save(folder / "a", slices)
    base.save(folder / "b", slices[:2])


@kind("slice_twice_under_new_uid", "corrected", says="there twice")
def _(slices, folder):
    more = base.copies(slices[2:3])
    more[0].SOPInstanceUID = more[0].file_meta.MediaStorageSOPInstanceUID = base.uid("copy")
    base.save(folder, slices + more)


@kind("two_images_in_one_place", "refused", says="two different images in one place")
def _(slices, folder):
    more = base.copies(slices[2:3])
    more[0].SOPInstanceUID = more[0].file_meta.MediaStorageSOPInstanceUID = base.uid("copy")
    more[0].PixelData = (base.pixels(more[0]) // 2).astype("<u2").tobytes()
    base.save(folder, slices + more)


@kind("two_images_with_one_uid", "refused", says="one SOP instance UID")
def _(slices, folder):
    more = base.copies(slices[2:3])
    more[0].PixelData = (base.pixels(more[0]) // 2).astype("<u2").tobytes()
    base.save(folder, slices + more)


@kind("slice_missing", "refused", says="1 slice missing")
def _(slices, folder):
    base.save(folder, slices[:2] + slices[3:])


@kind("slices_missing", "refused", says="2 slices missing")
def _(slices, folder):
    base.save(folder, slices[:1] + slices[3:])


@kind("thicker_further_on", "corrected", says="uneven")
def _(slices, folder):
    z = -100.0
    for k, ds in enumerate(slices):
        thick = k >= len(slices) // 2
        z += 5 if thick else 2.5
        ds.SliceThickness = "5" if thick else "2.5"
        ds.ImagePositionPatient[2] = str(z)
    base.save(folder, slices)


@kind("uneven_distances", "corrected", says="uneven")
def _(slices, folder):
    for k, ds in enumerate(slices):
        ds.ImagePositionPatient[2] = str(-100 + 2 * k + (0.4 if k % 2 else 0))
    base.save(folder, slices)


@kind("one_slice", "refused", says="1 slice")
def _(slices, folder):
    base.save(folder, slices[:1])


@kind("one_slice_of_many_frames", "suitable")
def _(slices, folder):
    base.save(folder, [base.enhanced(slices)])


# Geometry.

def tilted(slices, degrees=15.0):
    """Planes tilted round the x axis, the table moving along z."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    for k, ds in enumerate(slices):
        ds.ImageOrientationPatient = ["1", "0", "0", "0", f"{c:.12g}", f"{s:.12g}"]
        ds.ImagePositionPatient = ["-12.5", "-15", str(-100 + 2 * k)]
        ds.GantryDetectorTilt = str(degrees)
    return slices


@kind("gantry_tilt", "corrected", says="15.0 degrees")
def _(slices, folder):
    base.save(folder, tilted(slices))


@kind("gantry_tilt_back", "corrected", says="20.0 degrees")
def _(slices, folder):
    base.save(folder, tilted(slices, -20.0))


@kind("tilt_that_positions_do_not_show", "corrected", says="positions do not show")
def _(slices, folder):
    for ds in slices:
        ds.GantryDetectorTilt = "12"
    base.save(folder, slices)


@kind("slices_shifted", "refused", says="shifted against each other")
def _(slices, folder):
    for k, ds in enumerate(slices):
        ds.ImagePositionPatient[0] = str(-12.5 + (7 if k == 3 else 0))
    base.save(folder, slices)


@kind("no_position", "refused", says="ImagePositionPatient")
def _(slices, folder):
    for ds in slices:
        del ds.ImagePositionPatient
    base.save(folder, slices)


@kind("no_orientation", "refused", says="ImageOrientationPatient")
def _(slices, folder):
    for ds in slices:
        del ds.ImageOrientationPatient
    base.save(folder, slices)


@kind("no_pixel_spacing", "refused", says="PixelSpacing")
def _(slices, folder):
    for ds in slices:
        del ds.PixelSpacing
    base.save(folder, slices)


@kind("pixel_spacing_zero", "refused", says="positive distances")
def _(slices, folder):
    for ds in slices:
        ds.PixelSpacing = ["0", "0"]
    base.save(folder, slices)


@kind("orientation_of_no_direction", "refused", says="unit vectors")
def _(slices, folder):
    for ds in slices:
        ds.ImageOrientationPatient = ["1", "0", "0", "1", "0", "0"]
    base.save(folder, slices)


# Values.

@kind("no_rescale_unsigned", "refused", says="no rescale")
def _(slices, folder):
    for ds in slices:
        del ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType
    base.save(folder, slices)


@kind("no_rescale_signed", "corrected", says="no rescale")
def _(slices, folder):
    for ds in regular.signed(slices, 16):
        del ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType
    base.save(folder, slices)


@kind("values_not_in_hu", "refused", says="type Z_EFF")
def _(slices, folder):
    for ds in slices:
        ds.RescaleType = "Z_EFF"
    base.save(folder, slices)


@kind("monochrome1", "corrected", says="not inverted")
def _(slices, folder):
    for ds in slices:
        ds.PhotometricInterpretation = "MONOCHROME1"
    base.save(folder, slices)


@kind("bits_at_the_top", "corrected", says="shifted down")
def _(slices, folder):
    for ds in slices:
        ds.PixelData = (base.pixels(ds) << 4).astype("<u2").tobytes()
        ds.HighBit = 15
    base.save(folder, slices)


@kind("lossy_before", "suitable", says="")
def _(slices, folder):
    for ds in slices:
        ds.LossyImageCompression = "01"
        ds.LossyImageCompressionRatio = "10"
    base.save(folder, slices)


@kind("rgb", "refused", says="color")
def _(slices, folder):
    for ds in slices:
        image = (base.pixels(ds) >> 4).astype(np.uint8)
        ds.PixelData = np.repeat(image[..., None], 3, -1).tobytes()
        ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
    base.save(folder, slices)


@kind("maximum_projection", "refused", says="MIP")
def _(slices, folder):
    for ds in slices:
        ds.ImageType = ["DERIVED", "SECONDARY", "AXIAL", "MIP"]
    base.save(folder, slices)


# Other modalities.

@kind("mr", "refused", says="modality MR")
def _(slices, folder):
    for ds in slices:
        ds.Modality = "MR"
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    base.save(folder, slices)


@kind("pet", "refused", says="modality PT")
def _(slices, folder):
    for ds in slices:
        ds.Modality, ds.RescaleType = "PT", "BQML"
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.128"
    base.save(folder, slices)


@kind("no_modality", "corrected", says="CT by its class")
def _(slices, folder):
    for ds in slices:
        del ds.Modality
    base.save(folder, slices)


# Damage.

def cut(folder, name, keep):
    path = folder / name
    data = path.read_bytes()
    path.write_bytes(data[:int(keep * len(data))])


@kind("pixels_truncated", "refused", says="truncated pixel data")
def _(slices, folder):
    base.save(folder, slices)
    cut(folder, "IM0003.dcm", 0.8)


@kind("headers_truncated", "refused", says="cut off|where the file has|without pixel data")
def _(slices, folder):
    base.save(folder, slices)
    path = folder / "IM0003.dcm"
    path.write_bytes(path.read_bytes()[:-slices[3].Rows * slices[3].Columns * 2 - 60])


@kind("fragments_truncated", "refused", says="truncated pixel data")
def _(slices, folder):
    base.save(folder, regular.encapsulated(slices, "1.2.840.10008.1.2.4.80",
                                           regular.imagecodecs.jpegls_encode))
    cut(folder, "IM0003.dcm", 0.8)


@kind("codestream_damaged", "suitable", load="damaged JPEG-LS")
def _(slices, folder):
    # Half of a frame, whole as a fragment.
    for ds in regular.encapsulated(slices, "1.2.840.10008.1.2.4.80",
                                   regular.imagecodecs.jpegls_encode)[2:3]:
        frame = pydicom.encaps.get_frame(ds.PixelData, 0, number_of_frames=1)
        ds.PixelData = encapsulate([frame[: len(frame) // 4 * 2]])
    base.save(folder, slices)


@kind("no_meta_header", "corrected", says="no meta header")
def _(slices, folder):
    for k, ds in enumerate(slices):
        (folder / f"IM{k}").write_bytes(base.data_set_bytes(ds))


@kind("no_meta_header_implicit", "corrected", says="no meta header")
def _(slices, folder):
    for k, ds in enumerate(slices):
        (folder / f"IM{k}").write_bytes(base.data_set_bytes(ds, implicit=True))


@kind("no_preamble", "suitable")
def _(slices, folder):
    base.save(folder, slices)
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[128:])


@kind("meta_header_of_another_syntax", "corrected", says="transfer syntax")
def _(slices, folder):
    base.save(folder, slices)
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2\0\0\0", 1))


@kind("meta_header_length_wrong", "suitable")
def _(slices, folder):
    base.save(folder, slices)
    for path in folder.iterdir():
        data = bytearray(path.read_bytes())
        data[140:144] = (7).to_bytes(4, "little")
        path.write_bytes(data)


@kind("sequence_length_wrong", "suitable")
def _(slices, folder):
    for ds in slices:
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "X", "99Y", "Something"
        ds.ProcedureCodeSequence = Sequence([item])
    base.save(folder, slices)
    for path in folder.iterdir():
        data = bytearray(path.read_bytes())
        # The item claims more than its sequence holds.
        at = data.index(b"\xfe\xff\x00\xe0", data.index(b"\x08\x00\x32\x10SQ"))
        data[at + 4:at + 8] = (9999).to_bytes(4, "little")
        path.write_bytes(data)


@kind("odd_lengths", "suitable")
def _(slices, folder):
    base.save(folder, slices)
    for path in folder.iterdir():
        data = path.read_bytes()
        old = b"\x10\x00\x20\x00LO\x02\x00P1"
        assert old in data
        path.write_bytes(data.replace(old, b"\x10\x00\x20\x00LO\x03\x00P12"))


@kind("garbage_behind_the_pixels", "suitable")
def _(slices, folder):
    base.save(folder, slices)
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes() + b"\xfc\xff\xfc\xffOB\0\0\x08\0\0\0" + bytes(8) + b"rubbish!!" * 3)


@kind("private_undefined_length", "suitable")
def _(slices, folder):
    base.save(folder, slices)
    implicit = b"\x29\x00\x01\x10\x02\x00\x00\x00ab"
    private = (b"\x29\x00\x10\x00LO\x04\x00MINE" + b"\x29\x00\x40\x10UN\0\0\xff\xff\xff\xff"
               + b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + implicit + b"\xfe\xff\x0d\xe0\0\0\0\0"
               + b"\xfe\xff\xdd\xe0\0\0\0\0")
    for path in folder.iterdir():
        data = path.read_bytes()
        at = data.index(b"\xe0\x7f\x10\x00O")
        path.write_bytes(data[:at] + private + data[at:])


@kind("unknown_vr_for_known_elements", "suitable")
def _(slices, folder):
    base.save(folder, slices)
    for path in folder.iterdir():
        data = path.read_bytes()
        for tag in (b"\x20\x00\x32\x00DS", b"\x28\x00\x30\x00DS"):
            at = data.index(tag)
            length = int.from_bytes(data[at + 6:at + 8], "little")
            data = data[:at + 4] + b"UN\0\0" + length.to_bytes(4, "little") + data[at + 8:]
        path.write_bytes(data)


@kind("icon_compressed", "suitable")
def _(slices, folder):
    encoded = regular.encapsulated(slices, "1.2.840.10008.1.2.4.80", regular.imagecodecs.jpegls_encode)
    base.save(folder, encoded)
    icon = (b"\x88\x00\x00\x02SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
            b"\x28\x00\x10\x00US\x02\0\x02\0"
            b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\0\0\0\0"
            b"\xfe\xff\x00\xe0\x04\0\0\0\x28\x00\x10\x00\xfe\xff\xdd\xe0\0\0\0\0"
            b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0")
    for path in folder.iterdir():
        data = path.read_bytes()
        at = data.index(b"\xe0\x7f\x10\x00O")
        path.write_bytes(data[:at] + icon + data[at:])


@kind("progressive_jpeg", "refused", says="JPEG full progression")
def _(slices, folder):
    regular.recoded(regular.eight_bits(slices), folder, "dcmcjpeg", "+ep", "+un")


@kind("unknown_transfer_syntax", "refused", says="transfer syntax")
def _(slices, folder):
    base.save(folder, regular.encapsulated(slices, "1.2.840.10008.1.2.4.80", lambda image: b"what?"))
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.4.80", b"1.2.840.99999.1.2.4.80"))


# Identity.

@kind("no_uids", "corrected", says="no series UID")
def _(slices, folder):
    for ds in slices:
        for name in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
            setattr(ds, name, "")
        ds.pop("FrameOfReferenceUID", None)
    base.save(folder, slices)


@kind("some_slices_leave_things_out", "suitable")
def _(slices, folder):
    for ds in slices[1:3]:
        del ds.FrameOfReferenceUID, ds.ConvolutionKernel, ds.SliceThickness
    base.save(folder, slices)


@kind("dates_and_names_missing", "suitable")
def _(slices, folder):
    for ds in slices:
        for name in ("StudyDate", "SeriesDate", "ContentDate", "StudyTime", "SeriesTime",
                     "ContentTime", "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
                     "StudyID", "AccessionNumber", "InstanceNumber", "SliceThickness", "KVP",
                     "ConvolutionKernel", "ReferringPhysicianName", "SeriesNumber",
                     "PatientPosition", "ImageType", "RescaleType", "PositionReferenceIndicator"):
            ds.pop(pydicom.datadict.tag_for_keyword(name), None)
    base.save(folder, slices)


for charset, name in (("ISO_IR 192", "Müller^Jürgen"), ("ISO_IR 144", "Люкceмбypг"),
                      (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"), ("GB18030", "王^小东")):
    label = (charset if isinstance(charset, str) else charset[-1]).lower().replace(" ", "_")

    @kind(f"charset_{label}", "suitable")
    def _(slices, folder, charset=charset, name=name):
        for ds in slices:
            ds.SpecificCharacterSet, ds.PatientName = charset, name
        base.save(folder, slices)


# Multi-frame.

@kind("frames_without_positions", "refused", says="6 frames and the positions of 0|20 frames and the positions of 0")
def _(slices, folder):
    ds = copy.deepcopy(slices[0])
    ds.NumberOfFrames = len(slices)
    ds.PixelData = b"".join(one.PixelData for one in slices)
    base.save(folder, [ds])


@kind("frames_in_any_order", "suitable")
def _(slices, folder):
    base.save(folder, [base.enhanced(slices[::2] + slices[1::2])])


@kind("frames_missing", "refused", says="missing")
def _(slices, folder):
    base.save(folder, [base.enhanced(slices[:2] + slices[3:])])


@kind("enhanced_with_two_phases", "corrected", "corrected", says="another acquisition")
def _(slices, folder):
    others = base.copies(slices)
    for ds in others:
        ds.PixelData = (base.pixels(ds) // 2).astype("<u2").tobytes()
    ds = base.enhanced(slices + others)
    for k, group in enumerate(ds.PerFrameFunctionalGroupsSequence):
        group.FrameContentSequence[0].FrameAcquisitionNumber = 1 + k // len(slices)
    base.save(folder, [ds])


@kind("enhanced_pixels_truncated", "refused", says="truncated pixel data")
def _(slices, folder):
    base.save(folder, [base.enhanced(slices)])
    cut(folder, "IM0000.dcm", 0.9)


@kind("series_in_two_enhanced_files", "suitable")
def _(slices, folder):
    half = len(slices) // 2
    base.save(folder, [base.enhanced(slices[:half]), base.enhanced(slices[half:])])
