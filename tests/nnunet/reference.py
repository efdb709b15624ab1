"""nnU-Net's predictor from files to files, and how far its fp16 blending may be from exact."""

import contextlib
import io
import itertools
import shutil
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from nnunetv2.utilities.label_handling.label_handling import convert_labelmap_to_one_hot


@contextlib.contextmanager
def quiet():
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def predictor(folder, folds=(0,), mirror=True, step=0.5, gaussian=True, checkpoint="checkpoint_final.pth"):
    with quiet():
        result = nnUNetPredictor(tile_step_size=step, use_gaussian=gaussian, use_mirroring=mirror,
                                 perform_everything_on_device=False, device=torch.device("cpu"), allow_tqdm=False)
        result.initialize_from_trained_model_folder(str(folder), folds, checkpoint)
    return result


def predict(model, images, target, previous=None, probabilities=False):
    """`nnUNetv2_predict` on one case; `target` is the path of the label map to write."""
    with tempfile.TemporaryDirectory() as scratch, quiet():
        folder, stages = Path(scratch) / "out", None
        folder.mkdir()
        if previous is not None:
            stages = Path(scratch) / "previous"
            stages.mkdir()
            shutil.copy(previous, stages / "case.nii.gz")
        source = Path(scratch) / "in"
        source.mkdir()
        for channel, image in enumerate(images):
            shutil.copy(image, source / f"case_{channel:04d}.nii.gz")
        files = [[str(source / f"case_{c:04d}.nii.gz") for c in range(len(images))]]
        model.predict_from_files_sequential(files, [str(folder / "case")], save_probabilities=probabilities,
                                            folder_with_segs_from_prev_stage=str(stages) if stages else None)
        shutil.copy(folder / "case.nii.gz", target)
        if probabilities:
            with np.load(folder / "case.npz") as stored:
                return stored["probabilities"]


def preprocess(model, images, previous=None):
    """What the network sees, and nnU-Net's properties of the case."""
    preprocessor = model.configuration_manager.preprocessor_class(verbose=False)
    with quiet():
        data, seg, properties = preprocessor.run_case([str(i) for i in images], str(previous) if previous else None,
                                                      model.plans_manager, model.configuration_manager,
                                                      model.dataset_json)
    if previous is not None:
        one_hot = convert_labelmap_to_one_hot(seg[0], model.label_manager.foreground_labels, data.dtype)
        data = np.vstack((data, one_hot))
    return torch.from_numpy(data).float(), properties


def tiles(model, data):
    """Padded data, the slices of its tiles, and the slices that undo the padding."""
    padded, undo = pad_nd_image(data, model.configuration_manager.patch_size, "constant", {"value": 0}, True, None)
    return padded, model._internal_get_sliding_window_slicers(padded.shape[1:]), (slice(None), *undo[1:])


@torch.inference_mode()
def blend(model, data):
    """The reference's fp16 logits, computed again step by step, a bound on their rounding errors, and
    the same logits without fp16.

    Each store to fp16 is off by at most half a unit in the last place; the bound adds these up, per
    channel and voxel, the way the values themselves are added, divided and averaged.
    """
    padded, slices, undo = tiles(model, data)
    patch = tuple(model.configuration_manager.patch_size)
    weight = compute_gaussian(patch, 1.0 / 8, value_scaling_factor=10, device=torch.device("cpu")) \
        if model.use_gaussian else torch.ones((), dtype=torch.half)
    total, bound, exact = None, None, 0
    for parameters in model.list_of_parameters:
        model.network.load_state_dict(parameters)
        model.network.eval()
        heads = model.label_manager.num_segmentation_heads
        sums = torch.zeros((heads, *padded.shape[1:]), dtype=torch.half)
        counts = torch.zeros(padded.shape[1:], dtype=torch.half)
        off_sums, off_counts, wide, wide_counts = (torch.zeros(t.shape, dtype=torch.float64)
                                                   for t in (sums, counts, sums, counts))
        for where in slices:
            out = mirrored(model, padded[where][None])[0]
            if model.use_gaussian:
                out = out * weight
            sums[where] = (sums[where].float() + out).half()
            counts[where[1:]] = (counts[where[1:]].float() + weight.float()).half()
            wide[where] += out.double()
            wide_counts[where[1:]] += weight.double()
            off_sums[where] += half_ulp(sums[where]) + 2e-6 * out.abs()
            off_counts[where[1:]] += half_ulp(counts[where[1:]])
        logits = (sums.float() / counts.float()).half()
        divisor = counts.double()
        off = (off_sums + logits.double().abs() * off_counts) / (divisor - off_counts).clamp_min(divisor / 2)
        off = off + half_ulp(logits)
        exact = exact + wide / wide_counts
        if total is None:
            total, bound = logits, off
        else:
            total = (total.float() + logits.float()).half()
            bound = bound + off + half_ulp(total)
    if (n := len(model.list_of_parameters)) > 1:
        total = (total.float() / n).half()
        bound = bound / n + half_ulp(total)
    return total[undo], bound[undo], (exact / n)[undo]


def mirrored(model, tile):
    axes = model.allowed_mirroring_axes if model.use_mirroring else None
    out = model.network(tile)
    if axes is None:
        return out
    axes = [a + 2 for a in axes]
    subsets = [c for n in range(1, len(axes) + 1) for c in itertools.combinations(axes, n)]
    for subset in subsets:
        out = out + torch.flip(model.network(torch.flip(tile, subset)), subset)
    return out / (len(subsets) + 1)


def half_ulp(values):
    """Half a unit in the last place of fp16 values, as f64."""
    exponent = torch.floor(torch.log2(values.double().abs().clamp_min(2.0**-14)))
    return torch.exp2(exponent - 11)


def margins(model, images, previous=None):
    """Per voxel of the file: distance between the two best classes and what fp16 explains of it.

    For regions, distance from one half (logit 0) of the region that would change the label first.
    Also returns the reference's logits on the network's grid, the share of voxels that keep their
    label when tiles are blended without fp16, and how far probabilities move then, at most and on
    average.
    """
    data, properties = preprocess(model, images, previous)
    with quiet():
        logits = model.predict_logits_from_preprocessed_data(data)
    again, bound, exact = blend(model, data)
    assert torch.equal(logits, again), "the repeated blending differs from the reference's"
    configuration, forward = model.configuration_manager, model.plans_manager.transpose_forward
    spacing = [properties["spacing"][i] for i in forward]
    current = list(configuration.spacing)
    current = current if len(current) == 3 else [spacing[0], *current]
    shape = properties["shape_after_cropping_and_before_resampling"]
    to_file = lambda values: np.asarray(configuration.resampling_fn_probabilities(values, shape, current, spacing))
    resampled = to_file(logits)
    error = to_file(bound.float()).astype(np.float64)
    error = error + half_ulp(torch.from_numpy(resampled.astype(np.float32)).half()).numpy()
    values = resampled.astype(np.float64)
    if model.label_manager.has_regions:
        painted = np.where(values > 0, np.arange(len(values))[:, None, None, None], -1).max(0)
        matters = np.arange(len(values))[:, None, None, None] >= painted
        distance = np.where(matters, np.abs(values), np.inf)
        first = distance.argmin(0)[None]
        margin = np.take_along_axis(distance, first, 0)[0]
        rounding = np.take_along_axis(error, first, 0)[0]
    elif len(values) == 1:
        margin, rounding = np.full(shape, np.inf), np.zeros(shape)
    else:
        best = np.argsort(-values, axis=0, kind="stable")[:2]
        ranked, errors = np.take_along_axis(values, best, 0), np.take_along_axis(error, best, 0)
        margin, rounding = ranked[0] - ranked[1], errors.sum(0)
    decide = model.label_manager.convert_logits_to_segmentation
    agreement = (np.asarray(decide(to_file(exact.float()))) == np.asarray(decide(resampled))).mean()
    chances = [np.asarray(model.label_manager.apply_inference_nonlin(to_file(v))) for v in (exact.float(), logits)]
    moved = np.abs(chances[0] - chances[1])
    whole = np.zeros((2, *properties["shape_before_cropping"]))
    whole[0] = np.inf
    inside = tuple(slice(a, b) for a, b in properties["bbox_used_for_cropping"])
    whole[(0, *inside)], whole[(1, *inside)] = margin, rounding
    backward = [0] + [1 + i for i in model.plans_manager.transpose_backward]
    whole = whole.transpose(backward)
    name = model.plans_manager.image_reader_writer_class.__name__
    whole = np.stack([on_file_grid(part, name, properties) for part in whole])
    # Far from every border nothing can change, and nothing is stored.
    far = whole[0] > 4 * whole[1]
    whole[0][far], whole[1][far] = np.inf, 0
    with np.errstate(over="ignore"):
        return whole.astype(np.float16), logits, float(agreement), (float(moved.max()), float(moved.mean()))


def on_file_grid(values, reader, properties):
    """Undoes a reader's reorientation the way it writes labels, for real numbers."""
    if reader == "NibabelIOWithReorient":
        stuff = properties["nibabel_stuff"]
        image = nib.Nifti1Image(values.transpose(2, 1, 0), stuff["reoriented_affine"])
        back = ornt_transform(axcodes2ornt("RAS"), io_orientation(stuff["original_affine"]))
        return np.asarray(image.as_reoriented(back).dataobj).transpose(2, 1, 0)
    if reader == "SimpleITKIOWithReorient":
        stuff = properties["sitk_stuff"]
        image = sitk.GetImageFromArray(values)
        image.SetSpacing(stuff["spacing"])
        image.SetOrigin(stuff["origin"])
        image.SetDirection(stuff["direction"])
        return sitk.GetArrayFromImage(sitk.DICOMOrient(image, stuff["original_orientation"]))
    return values
