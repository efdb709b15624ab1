"""What scripts use of nnU-Net v2's ``nnUNetPredictor``, so that they change one import:

>>> from fastnnunet.nnunet import nnUNetPredictor    # was: nnunetv2.inference.predict_from_raw_data

Arguments mean what they do there. Those about processes and about PyTorch have no meaning here and are taken
and ignored; what is not offered raises :class:`NotImplementedError`. Like nnU-Net's, the predictor applies no
postprocessing. Unlike nnU-Net, it writes results and nothing beside them.
"""

import json
import os
from collections.abc import Sequence

import numpy as np

from ._errors import ModelError, UsageError
from ._segmenter import Segmentation, Segmenter


class nnUNetPredictor:
    """Predicts with a folder that nnU-Net v2 trained.

    ``device`` is a name or a ``torch.device``; without one, the fastest that this build and machine have is
    taken. ``options`` are those of :class:`fastnnunet.Segmenter`, such as ``precision`` and ``threads``.
    """

    def __init__(
        self,
        tile_step_size: float = 0.5,
        use_gaussian: bool = True,
        use_mirroring: bool = True,
        perform_everything_on_device: bool = True,
        device=None,
        verbose: bool = False,
        verbose_preprocessing: bool = False,
        allow_tqdm: bool = True,
        **options,
    ):
        self._options = {
            "step_size": tile_step_size,
            "gaussian": use_gaussian,
            "mirror": None if use_mirroring else (),
            "device": None if device is None else str(device),
            "postprocessing": "none",
            **options,
        }
        self._segmenter: Segmenter | None = None
        self._ending = ".nii.gz"

    def initialize_from_trained_model_folder(
        self,
        model_training_output_dir: str,
        use_folds: str | int | Sequence[str | int] | None = None,
        checkpoint_name: str = "checkpoint_final.pth",
    ) -> None:
        """Opens the folder with ``plans.json``, ``dataset.json`` and folds; ``None`` for all that are there."""
        folds = use_folds
        if folds is not None and (isinstance(folds, str) or not isinstance(folds, Sequence)):
            folds = [folds]
        folds = None if folds is None else ",".join(str(fold) for fold in folds)
        self._segmenter = Segmenter(
            folder=model_training_output_dir, folds=folds, checkpoint=checkpoint_name, **self._options
        )
        with open(os.path.join(model_training_output_dir, "dataset.json"), encoding="utf-8") as file:
            self._ending = json.load(file).get("file_ending", self._ending)

    def predict_single_npy_array(
        self,
        input_image: np.ndarray,
        image_properties: dict,
        segmentation_previous_stage: np.ndarray | None = None,
        output_file_truncated: str | None = None,
        save_or_return_probabilities: bool = False,
    ) -> np.ndarray | None:
        """Labels ``[z, y, x]`` of an image ``[c, z, y, x]`` with its properties, as nnU-Net's readers give
        them: ``spacing`` is ``[z, y, x]`` in mm. ``None`` where they are written to a file."""
        _offered(save_or_return_probabilities, segmentation_previous_stage)
        channels = list(np.asarray(input_image))
        spacing = image_properties["spacing"]
        affine = _affine(image_properties)
        if affine is None:
            done = self._opened().segment(channels, spacing=spacing)
        else:
            # With an affine, arrays have the axes x, y, z.
            channels = [channel.T for channel in channels]
            done = self._opened().segment(channels, affine=affine, spacing=spacing[::-1])
        return self._given(done, output_file_truncated)

    def predict_from_list_of_npy_arrays(
        self,
        image_or_list_of_images: np.ndarray | list[np.ndarray],
        segs_from_prev_stage_or_list_of_segs_from_prev_stage,
        properties_or_list_of_properties: dict | list[dict],
        truncated_ofname: str | list[str] | None,
        num_processes: int = 3,
        save_probabilities: bool = False,
        num_processes_segmentation_export: int = 8,
    ) -> list[np.ndarray | None]:
        """As :meth:`predict_single_npy_array`, for one image or a list."""

        def listed(given):
            return given if isinstance(given, list) else [given]

        images = listed(image_or_list_of_images)
        properties = listed(properties_or_list_of_properties)
        previous = listed(segs_from_prev_stage_or_list_of_segs_from_prev_stage)
        names = [None] * len(images) if truncated_ofname is None else listed(truncated_ofname)
        previous = previous * len(images) if previous == [None] else previous
        for what, given in (("properties", properties), ("names", names), ("previous stages", previous)):
            if len(given) != len(images):
                raise UsageError(f"{what}: found {len(given)}, expected one for each of {len(images)} images")
        return [
            self.predict_single_npy_array(*case, save_probabilities)
            for case in zip(images, properties, previous, names)
        ]

    def predict_from_files(
        self,
        list_of_lists_or_source_folder: str | list[list[str]],
        output_folder_or_list_of_truncated_output_files: str | list[str] | None,
        save_probabilities: bool = False,
        overwrite: bool = True,
        num_processes_preprocessing: int = 1,
        num_processes_segmentation_export: int = 1,
        folder_with_segs_from_prev_stage: str | None = None,
        num_parts: int = 1,
        part_id: int = 0,
    ) -> list[np.ndarray | None]:
        """Cases of a folder (``NAME_0000.nii.gz``, ...) or lists of files, one list a case with a file for
        each channel.

        Results are written as ``NAME.nii.gz`` to a folder, or to the names given, without ending; with neither
        they are given back as arrays ``[z, y, x]``. With ``num_parts``, each ``num_parts``-th case from
        ``part_id`` on.
        """
        _offered(save_probabilities, folder_with_segs_from_prev_stage)
        cases = list_of_lists_or_source_folder
        if isinstance(cases, (str, os.PathLike)):
            cases = self._cases(cases)
        outputs = output_folder_or_list_of_truncated_output_files
        if isinstance(outputs, (str, os.PathLike)):
            os.makedirs(outputs, exist_ok=True)
            outputs = [os.path.join(outputs, self._name(files[0])) for files in cases]
        if outputs is None:
            outputs = [None] * len(cases)
        if len(outputs) != len(cases):
            raise UsageError(f"outputs: found {len(outputs)}, expected one for each of {len(cases)} cases")
        results: list[np.ndarray | None] = []
        for files, output in list(zip(cases, outputs))[part_id::num_parts]:
            if output is not None and not overwrite and os.path.exists(output + self._ending):
                results.append(None)
            else:
                results.append(self._given(self._opened().segment(list(files)), output))
        return results

    def predict_from_files_sequential(
        self,
        list_of_lists_or_source_folder: str | list[list[str]],
        output_folder_or_list_of_truncated_output_files: str | list[str] | None,
        save_probabilities: bool = False,
        overwrite: bool = True,
        folder_with_segs_from_prev_stage: str | None = None,
    ) -> list[np.ndarray | None]:
        """As :meth:`predict_from_files`, which is sequential here too: each case has all processors."""
        return self.predict_from_files(
            list_of_lists_or_source_folder,
            output_folder_or_list_of_truncated_output_files,
            save_probabilities,
            overwrite,
            folder_with_segs_from_prev_stage=folder_with_segs_from_prev_stage,
        )

    def _opened(self) -> Segmenter:
        if self._segmenter is None:
            raise UsageError("predictor: found no model, expected initialize_from_trained_model_folder before")
        return self._segmenter

    def _given(self, done: Segmentation, output: str | None) -> np.ndarray | None:
        """The labels, or none where they are written."""
        if output is None:
            return done.labels
        done.save(os.fspath(output) + self._ending, overwrite=True)
        return None

    def _name(self, file: str) -> str:
        """A case's name: that of its first file without channel and ending."""
        name = os.path.basename(file)
        if not name.endswith(self._ending):
            raise ModelError(f"{name}: found another ending, expected {self._ending} as in dataset.json")
        return name[: -len(self._ending) - len("_0000")]

    def _cases(self, folder: str) -> list[list[str]]:
        """The files of a folder's cases, one for each channel of the model."""
        names = sorted({self._name(file) for file in os.listdir(folder) if file.endswith(self._ending)})
        channels = range(self._opened().channels)
        return [[os.path.join(folder, f"{name}_{c:04}{self._ending}") for c in channels] for name in names]


def _affine(properties: dict) -> np.ndarray | None:
    """From (x, y, z, 1) to millimetres right, anterior and superior; none where a reader keeps none."""
    if "nibabel_stuff" in properties:
        place = properties["nibabel_stuff"]
        return np.asarray(place.get("reoriented_affine", place["original_affine"]))
    if "sitk_stuff" not in properties:
        return None
    place = properties["sitk_stuff"]
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(place["direction"], (3, 3)) * np.asarray(place["spacing"])
    affine[:3, 3] = place["origin"]
    # ITK's axes run left and posterior.
    affine[:2] *= -1
    return affine


def _offered(probabilities, previous_stage) -> None:
    if probabilities:
        raise NotImplementedError("probabilities are written by python -m fastnnunet --save-probabilities only")
    if previous_stage is not None:
        raise NotImplementedError("a cascade runs its first stage itself; labels of it are not taken")
