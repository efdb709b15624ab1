"""Judges objects by programs nobody here wrote.

    written.py SERIES PROGRAM_CONVERT PROGRAM_WRITE FOLDER [KIND...]

SERIES is a folder with one suitable series. A label map with a hole, an island, a diagonal and
structures of one voxel is made on its volume, written as objects, and recovered from each.
"""

import json
import pathlib
import subprocess
import sys

import nibabel
import numpy as np
import pydicom
import scipy.ndimage
import SimpleITK

SEGMENTS = [
    {"id": 1, "name": "kidney_left", "side": "left",
     "kind": ["64033007", "SCT", "Kidney"], "color": [192, 98, 63]},
    {"id": 2, "name": "kidney_right", "side": "right",
     "kind": ["64033007", "SCT", "Kidney"], "color": [203, 126, 98]},
    {"id": 3, "name": "aorta", "kind": ["15825003", "SCT", "Aorta"], "color": [216, 54, 54]},
    {"id": 4, "name": "phalanges_feet_left", "side": "left", "region": ["56459004", "SCT", "Foot"],
     "kind": ["28641004", "SCT", "Phalanx"], "color": [222, 154, 184]},
    {"id": 5, "name": "absent", "kind": ["10200004", "SCT", "Liver"], "color": [10, 20, 30]},
]


def label_map(shape):
    """Labels [z, y, x] that try what contours and frames may trip over."""
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    labels = np.zeros(shape, np.uint8)
    ring = (x + 0.4) ** 2 + (y + 0.2) ** 2 + 0.2 * z**2
    labels[(ring < 0.2) & (ring > 0.04)] = 1
    labels[(x - 0.45) ** 2 + (y - 0.3) ** 2 + 0.3 * z**2 < 0.12] = 2
    labels[(x - 0.45) ** 2 + (y - 0.3) ** 2 < 0.01] = 3
    labels[ring < 0.01] = 3
    for k in range(min(shape)):
        labels[k, min(k + 1, shape[1] - 1), min(k + 2, shape[2] - 1)] = 4
    labels[-1, -1, -1] = labels[0, 0, 0] = 4
    return labels


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{command[0]}: {done.stdout}{done.stderr}")
    return done.stdout


def from_highdicom(path, numbers):
    """Label map of a SEG in the order of source slices, by highdicom."""
    import highdicom
    seg = highdicom.seg.segread(path)
    volume = seg.get_volume(combine_segments=True)
    return volume.array.astype(np.uint8), volume.affine


def check_highdicom(path, labels, affine):
    found, found_affine = from_highdicom(path, None)
    # Both as RAS world positions of the labelled voxels: the judge may order axes otherwise.
    lps = np.diag([-1, -1, 1, 1]) @ found_affine
    order = np.argwhere(found)
    ours = np.argwhere(labels)
    theirs = (lps @ np.c_[order, np.ones(len(order))].T).T[:, :3]
    mine = (affine @ np.c_[ours[:, ::-1], np.ones(len(ours))].T).T[:, :3]
    a = np.c_[theirs, found[tuple(order.T)]].round(3)
    b = np.c_[mine, labels[tuple(ours.T)]].round(3)
    a, b = a[np.lexsort(a.T)], b[np.lexsort(b.T)]
    assert a.shape == b.shape and np.abs(a - b).max() < 0.01, "highdicom sees other labels"


def check_carried(path, series, labels, affine):
    """Labels of a resampled series on its own slices: those of the nearest voxels, to the bit."""
    import highdicom
    seg = highdicom.seg.segread(path)
    frames = {}
    for file in series.iterdir():
        ds = pydicom.dcmread(file, stop_before_pixels=True)
        x, y = np.meshgrid(np.arange(ds.Columns), np.arange(ds.Rows))
        row, column = np.array(ds.ImageOrientationPatient[:3]), np.array(ds.ImageOrientationPatient[3:])
        points = (np.array(ds.ImagePositionPatient) + x[..., None] * row * ds.PixelSpacing[1]
                  + y[..., None] * column * ds.PixelSpacing[0]) * [-1, -1, 1]
        index = np.linalg.solve(affine[:3, :3], (points - affine[:3, 3]).reshape(-1, 3).T)
        # Halves go up, as the writer's rounding of positive numbers does.
        i, j, k = np.floor(index + 0.5 + 1e-6).astype(int)
        inside = ((0 <= i) & (i < labels.shape[2]) & (0 <= j) & (j < labels.shape[1])
                  & (0 <= k) & (k < labels.shape[0]))
        wanted = np.zeros(i.shape, labels.dtype)
        wanted[inside] = labels[k[inside], j[inside], i[inside]]
        frames[ds.SOPInstanceUID] = wanted.reshape(ds.Rows, ds.Columns)
    uids = list(frames)
    found = seg.get_pixels_by_source_instance(uids, combine_segments=True,
                                              assert_missing_frames_are_empty=True)
    off = sum(int((a != frames[u]).sum()) for a, u in zip(found, uids))
    assert off == 0, f"{off} labels are not those of the nearest voxels"


def check_dcmqi(path, scratch, labels, affine):
    scratch.mkdir(exist_ok=True)
    run(pathlib.Path(sys.executable).parent / "segimage2itkimage", "--inputDICOM", path,
        "--outputDirectory", scratch, "--mergeSegments", "--outputType", "nii")
    merged = np.zeros_like(labels)
    for file in scratch.glob("*.nii*"):
        image = nibabel.load(file)
        found = np.asarray(image.dataobj)
        index = np.argwhere(found)
        world = image.affine @ np.c_[index, np.ones(len(index))].T
        own = np.linalg.solve(affine, world).round().astype(int)[:3].T
        merged[tuple(own[:, ::-1].T)] = found[tuple(index.T)]
    assert np.array_equal(merged, labels), f"dcmqi sees other labels: {np.argwhere(merged != labels)[:5]}"


def has_hole(mask):
    """Whether the mask surrounds anything in a slice."""
    return any(not np.array_equal(scipy.ndimage.binary_fill_holes(slice_), slice_) for slice_ in mask)


def check_plastimatch(series, path, scratch, labels, affine, segments=SEGMENTS):
    """Rasterized on the series by plastimatch: Dice 0.99 and volume within 1 %, 2 % with holes."""
    scratch.mkdir(exist_ok=True)
    rasters = scratch / "rasters"
    holes = {s["id"] for s in segments if has_hole(labels == s["id"])}
    run("plastimatch", "convert", "--input", path, "--referenced-ct", series, "--output-prefix",
        rasters, "--prefix-format", "nrrd", "--fixed", scratch / "ct.nii")
    voxel = abs(np.linalg.det(affine[:3, :3]))
    for segment in segments:
        own = labels == segment["id"]
        if not own.any():
            continue
        image = SimpleITK.ReadImage(rasters / f"{segment['name']}.nrrd")
        index = np.argwhere(SimpleITK.GetArrayFromImage(image))[:, ::-1]
        direction = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
        points = (index @ direction.T + image.GetOrigin()) * [-1, -1, 1]
        i, j, k = np.linalg.solve(affine[:3, :3], (points - affine[:3, 3]).T).round().astype(int)
        theirs = np.zeros_like(own)
        theirs[k, j, i] = True
        dice = 2 * (own & theirs).sum() / (own.sum() + theirs.sum())
        volume = theirs.sum() / own.sum() - 1
        print(f"  {segment['name']}: {own.sum() * voxel / 1000:.2f} ml, Dice {dice:.4f}, volume {volume:+.2%}")
        if own.sum() * voxel >= 1000:
            assert dice >= 0.99 and abs(volume) <= (0.02 if segment["id"] in holes else 0.01)


def check_report(path, scratch, labels, voxels, affine, segments=SEGMENTS):
    """What highdicom and dcmqi read of a report, against NumPy's own measures."""
    import highdicom
    scratch.mkdir(exist_ok=True)
    report = highdicom.sr.srread(path)
    groups = report.content.get_volumetric_roi_measurement_groups()
    assert len(groups) == len(np.unique(labels)) - 1, "highdicom sees another number of groups"
    run(pathlib.Path(sys.executable).parent / "tid1500reader", "--inputDICOM", path,
        "--outputMetadata", scratch / "report.json")
    theirs = json.loads((scratch / "report.json").read_text())["Measurements"]
    assert len(theirs) == len(groups), "dcmqi sees another number of groups"
    voxel = abs(np.linalg.det(affine[:3, :3]))
    ids = {s["name"]: s["id"] for s in segments}
    for group, other in zip(groups, theirs):
        inside = labels == ids[group.tracking_identifier]
        values = voxels[inside].astype(np.float64)
        expected = [inside.sum() * voxel, values.mean(), values.std()]
        ours = [m.value for m in group.get_measurements()]
        assert np.allclose(ours, expected, rtol=1e-9, atol=1e-9), (ours, expected)
        assert np.allclose([float(m["value"]) for m in other["measurementItems"]], expected)
        side = group.finding_sites[0].laterality
        name = group.tracking_identifier
        told = next(s.get("side") for s in segments if s["name"] == name)
        # In the program's runs the label table tells it, which the segmentation is held against.
        assert segments is not SEGMENTS or (side.meaning.lower() if side else None) == told, name


def check_tracking(path, segmentations):
    """Each group of a report has the tracking UID, kind and side of its segment, as highdicom reads them."""
    import highdicom
    report = highdicom.sr.srread(path)
    groups = report.content.get_volumetric_roi_measurement_groups()
    segs = {seg.SOPInstanceUID: seg for seg in map(highdicom.seg.segread, segmentations)}
    for group in groups:
        reference = group.referenced_segment[0]
        seg = segs[reference.referenced_sop_instance_uid]
        [number] = reference.referenced_segment_numbers
        segment = seg.get_segment_description(number)
        assert group.tracking_uid == segment.tracking_uid, f"{segment.segment_label} has two tracking UIDs"
        assert group.tracking_identifier == segment.tracking_id == segment.segment_label
        assert group.finding_type == segment.segmented_property_type, segment.segment_label
        region = segment.get("AnatomicRegionSequence", [segment.segmented_property_type])[0]
        sides = (region.get("SegmentedPropertyTypeModifierCodeSequence")
                 or region.get("AnatomicRegionModifierSequence") or [None])
        side = group.finding_sites[0].laterality
        assert (side and side.value) == (sides[0] and sides[0].CodeValue), segment.segment_label
    ids = [sorted(seg.get_tracking_ids()) for seg in segs.values()]
    assert all(other == ids[0] for other in ids), "segmentations of one result track structures differently"
    print(f"  {len(groups)} structures tracked alike in {1 + len(segs)} objects")


def check_picture(path):
    image = pydicom.dcmread(path).pixel_array
    wanted = (np.arange(48 * 32 * 3) * 7 % 251).astype(np.uint8).reshape(32, 48, 3)
    assert np.array_equal(image, wanted), "another picture"


def dciodvfy(path):
    done = subprocess.run([pathlib.Path(sys.executable).parent / "dciodvfy", path],
                          capture_output=True, text=True)
    return {line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")}


def main():
    series, convert, write, folder = (pathlib.Path(a) for a in sys.argv[1:5])
    kinds = sys.argv[5:] or ["labelmap", "binary", "rtstruct", "sr", "sc"]
    folder.mkdir(parents=True, exist_ok=True)
    resampled = "resampled" in run(convert, series, folder / "volume.nii")
    image = nibabel.load(folder / "volume.nii")
    labels = label_map(image.shape[::-1])
    labels.tofile(folder / "labels.u8")
    (folder / "segments.json").write_text(json.dumps(SEGMENTS))
    print(run(write, series, folder / "labels.u8", folder / "segments.json", folder, *kinds))
    known = set()
    for path in [p for p in series.iterdir() if p.suffix == ".dcm"]:
        known |= dciodvfy(path)
    for kind in kinds:
        path = folder / f"{kind}.dcm"
        errors = dciodvfy(path) - known
        assert not errors, f"{kind}: dciodvfy: {sorted(errors)}"
        if kind in ("binary", "labelmap"):
            if resampled:
                check_carried(path, series, labels, image.affine)
            else:
                check_highdicom(path, labels, image.affine)
                check_dcmqi(path, folder / f"dcmqi_{kind}", labels, image.affine)
        if kind == "sr":
            check_report(path, folder / "sr", labels, np.asarray(image.dataobj).T, image.affine)
            segmentations = [kind for kind in ("binary", "labelmap") if kind in kinds]
            check_tracking(path, [folder / f"{kind}.dcm" for kind in segmentations])
        if kind == "sc":
            check_picture(path)
        if kind == "rtstruct" and not resampled:
            scratch = folder / kind
            scratch.mkdir(exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine), scratch / "ct.nii")
            check_plastimatch(series, path, scratch, labels, image.affine)
        print(f"{kind}: accepted")


if __name__ == "__main__":
    main()
