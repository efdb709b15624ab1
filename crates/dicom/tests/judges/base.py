"""A valid CT series to make others of: a phantom, or real slices with invented identifiers."""

import copy
import hashlib
import io
import pathlib

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

PATIENT = "Doe^Jane"


def uid(*parts):
    """An identifier that depends on its parts alone."""
    number = int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:15], "big")
    return f"2.25.{number}"


def phantom(count=6, rows=24, columns=20):
    """HU of a small body with air around it, an oblique bone and noise; [z, y, x] int16."""
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in (count, rows, columns)), indexing="ij")
    noise = np.random.default_rng(7).integers(-20, 20, z.shape)
    hu = np.full(z.shape, -1000.0)
    hu[x**2 / 0.8 + y**2 / 0.9 < 0.9] = 40
    hu[(x + 0.2) ** 2 + (y - 0.1 + 0.3 * z) ** 2 < 0.1] = 700
    hu[(x - 0.4) ** 2 + (y + 0.2) ** 2 + z**2 < 0.1] = -850
    return (hu + noise).clip(-1024, 3071).astype(np.int16)


def header(rows, columns, spacing):
    """What all slices share."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SOPClassUID = CTImageStorage
    ds.StudyDate = ds.SeriesDate = ds.ContentDate = "20240102"
    ds.StudyTime = ds.SeriesTime = ds.ContentTime = "101112"
    ds.AccessionNumber = "A1"
    ds.Modality = "CT"
    ds.Manufacturer = "Invented"
    ds.ReferringPhysicianName = "Roe^Richard"
    ds.StudyDescription = "Study of Jane Doe"
    ds.SeriesDescription = "Series of Jane Doe"
    ds.PatientName = PATIENT
    ds.PatientID = "P1"
    ds.PatientBirthDate = "19700101"
    ds.PatientSex = "F"
    ds.PatientAge = "054Y"
    ds.KVP = "120"
    ds.SliceThickness = "2"
    ds.ConvolutionKernel = "B30f"
    ds.PatientPosition = "HFS"
    ds.StudyInstanceUID = uid("study")
    ds.SeriesInstanceUID = uid("series")
    ds.StudyID = "1"
    ds.SeriesNumber = "3"
    ds.AcquisitionNumber = "1"
    ds.FrameOfReferenceUID = uid("frame of reference")
    ds.PositionReferenceIndicator = ""
    ds.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = rows, columns
    ds.PixelSpacing = [str(spacing), str(spacing)]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "-1024", "1", "HU"
    return ds


def with_meta(ds, syntax=ExplicitVRLittleEndian):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ds.SOPClassUID
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    meta.ImplementationClassUID = uid("implementation")
    # A data set that remembers no encoding it was read in.
    result = Dataset()
    result.update({e.tag: e for e in ds})
    result.file_meta = meta
    return result


def of_phantom():
    hu = phantom()
    slices = []
    for k, image in enumerate(hu):
        ds = header(*image.shape, spacing=1.25)
        ds.SOPInstanceUID = uid("slice", k)
        ds.InstanceNumber = str(k + 1)
        ds.ImagePositionPatient = ["-12.5", "-15", str(-100 + 2 * k)]
        ds.SliceLocation = str(-100 + 2 * k)
        ds.PixelData = (image + 1024).astype("<u2").tobytes()
        slices.append(with_meta(ds))
    return slices


def of_slices(folder):
    """Real slices: decompressed, blank identifiers filled in, private elements left out."""
    paths = sorted(p for p in pathlib.Path(folder).iterdir() if p.is_file())
    slices = [pydicom.dcmread(p) for p in paths]
    slices.sort(key=lambda ds: float(ds.ImagePositionPatient[2]))
    shared = header(1, 1, 1)
    result = []
    for k, ds in enumerate(slices):
        pixels = ds.pixel_array
        ds.remove_private_tags()
        for name in ("ReferencedStudySequence", "ReferencedPerformedProcedureStepSequence",
                     "ReferencedImageSequence", "SourceImageSequence", "IrradiationEventUID"):
            ds.pop(pydicom.datadict.tag_for_keyword(name), None)
        for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "StudyID",
                     "SeriesNumber", "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
                     "SOPClassUID", "AccessionNumber", "ReferringPhysicianName"):
            setattr(ds, name, getattr(shared, name))
        ds.SOPInstanceUID = uid("real slice", k)
        ds.InstanceNumber = str(k + 1)
        ds.PixelData = pixels.astype("<u2").tobytes()
        ds["PixelData"].VR = "OW"
        ds["PixelData"].is_undefined_length = False
        del ds.file_meta
        result.append(with_meta(ds))
    return result


def pixels(ds):
    """Stored values of a slice of `of_phantom` or `of_slices`."""
    return np.frombuffer(ds.PixelData, "<u2").reshape(ds.Rows, ds.Columns)


def copies(slices, name=None):
    """The same slices again; as other instances of the series if they get a name."""
    slices = [copy.deepcopy(ds) for ds in slices]
    for k, ds in enumerate(slices if name else []):
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid(name, k)
    return slices


def another_series(slices, name):
    """Copies in a series of their own."""
    slices = copies(slices, name)
    for ds in slices:
        ds.SeriesInstanceUID = uid(name, "series")
    return slices


def save(folder, slices, name="IM{:04d}.dcm"):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for k, ds in enumerate(slices):
        pydicom.dcmwrite(folder / name.format(k), ds, enforce_file_format=True)


def data_set_bytes(ds, implicit=False, little=True):
    """The data set alone."""
    plain = Dataset()
    plain.update({e.tag: e for e in ds if e.tag.group != 2})
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, plain, implicit_vr=implicit, little_endian=little,
                     enforce_file_format=False)
    return buffer.getvalue()


def enhanced(slices, legacy=False):
    """One multi-frame image of the slices."""
    first = slices[0]
    ds = copy.deepcopy(first)
    ds.SOPClassUID = ("1.2.840.10008.5.1.4.1.1.2.2" if legacy else "1.2.840.10008.5.1.4.1.1.2.1")
    ds.SOPInstanceUID = uid("enhanced", legacy, first.SOPInstanceUID)
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness",
                 "RescaleSlope", "RescaleIntercept", "RescaleType", "ConvolutionKernel", "KVP",
                 "SliceLocation", "AcquisitionNumber"):
        if name in ds:
            delattr(ds, name)
    ds.NumberOfFrames = len(slices)
    ds.InstanceNumber = "1"
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = first.PixelSpacing, first.SliceThickness
    orientation.ImageOrientationPatient = first.ImageOrientationPatient
    shared.PixelMeasuresSequence = Sequence([measures])
    shared.PlaneOrientationSequence = Sequence([orientation])
    ds.SharedFunctionalGroupsSequence = Sequence([shared])
    groups = []
    for k, one in enumerate(slices):
        group, position, values, content, kind = (Dataset() for _ in range(5))
        position.ImagePositionPatient = one.ImagePositionPatient
        values.RescaleSlope, values.RescaleIntercept = one.RescaleSlope, one.RescaleIntercept
        values.RescaleType = "HU"
        content.FrameAcquisitionNumber, content.StackID, content.InStackPositionNumber = 1, "1", k + 1
        kind.FrameType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
        group.PlanePositionSequence = Sequence([position])
        group.PixelValueTransformationSequence = Sequence([values])
        group.FrameContentSequence = Sequence([content])
        group.CTImageFrameTypeSequence = Sequence([kind])
        groups.append(group)
    ds.PerFrameFunctionalGroupsSequence = Sequence(groups)
    ds.PixelData = b"".join(one.PixelData for one in slices)
    return ds
