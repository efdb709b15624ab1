"""nnU-Net plans, dataset descriptions and predictors for the stages `export` and `case`."""

import contextlib
import io
from pathlib import Path

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

import network
from common import write_json

RESAMPLING = "resample_data_or_seg_to_shape"


def plans(config, reader="SimpleITKIO"):
    forward = config.get("transpose_forward", [0, 1, 2])
    kwargs = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    return {
        "dataset_name": "Dataset999_Selftest", "plans_name": "nnUNetPlans",
        "image_reader_writer": reader, "label_manager": "LabelManager",
        "transpose_forward": forward, "transpose_backward": [int(i) for i in np.argsort(forward)],
        "foreground_intensity_properties_per_channel": {"0": config["intensity_properties"]},
        "configurations": {"3d_fullres": {
            "data_identifier": "nnUNetPlans_3d_fullres", "preprocessor_name": "DefaultPreprocessor",
            "batch_size": 2, "patch_size": config["patch_size"], "spacing": config["target_spacing"],
            "normalization_schemes": [config.get("normalization", "CTNormalization")],
            "use_mask_for_norm": [False],
            "resampling_fn_data": RESAMPLING, "resampling_fn_data_kwargs": kwargs,
            "resampling_fn_seg": RESAMPLING,
            "resampling_fn_seg_kwargs": {**kwargs, "is_seg": True, "order": 1},
            "resampling_fn_probabilities": RESAMPLING,
            "resampling_fn_probabilities_kwargs": {**kwargs, "order": 1},
            "batch_dice": False, "architecture": network.ARCHITECTURE,
        }},
    }


def dataset(labels):
    return {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}


def predictor(config, folder, net, reader="SimpleITKIO"):
    """Writes a trained model folder and loads it the way `nnUNetv2_predict` does."""
    folder = Path(folder)
    (folder / "fold_0").mkdir(parents=True)
    write_json(folder / "plans.json", plans(config, reader))
    labels = {"background": 0} | {label["name"]: label["id"] for label in config["labels"]}
    write_json(folder / "dataset.json", dataset(labels))
    mirror = config.get("mirror_axes")
    torch.save({"network_weights": net.state_dict(), "trainer_name": "nnUNetTrainer",
                "init_args": {"configuration": "3d_fullres"},
                "inference_allowed_mirroring_axes": tuple(mirror) if mirror else None},
               folder / "fold_0/checkpoint_final.pth")
    with contextlib.redirect_stdout(io.StringIO()):
        result = nnUNetPredictor(tile_step_size=config.get("step_size", 0.5),
                                 use_gaussian=config.get("use_gaussian", True), use_mirroring=bool(mirror),
                                 perform_everything_on_device=False, device=torch.device("cpu"), allow_tqdm=False)
        result.initialize_from_trained_model_folder(str(folder), (0,))
    return result


def predict(result, source, target):
    """`source` to `target` (both `.nii.gz`) with reading, preprocessing, tiles and export by nnU-Net."""
    stem = str(target).removesuffix(".nii.gz")
    with contextlib.redirect_stdout(io.StringIO()):
        result.predict_from_files_sequential([[str(source)]], [stem])
