"""Segmenters and what they find, with types."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import _native
from ._errors import UsageError
from ._images import is_path, lend

Progress = Callable[[str, int, int], bool | None]


class Label(NamedTuple):
    """A structure that a segmenter can find."""

    #: Its value in label maps; 0 is the background and not listed.
    id: int
    #: Its name: TotalSegmentator's where it has one.
    name: str
    #: ``#rrggbb``.
    color: str | None
    #: SNOMED CT code of what it is.
    snomed: str | None
    #: What the code means, in the words of DICOM's context groups.
    meaning: str | None
    #: ``left`` or ``right`` where the code does not say it.
    side: str | None


class Structure(NamedTuple):
    """How much of a structure was found."""

    #: Its value in the label map.
    id: int
    #: Its name.
    name: str
    #: Voxels that have it.
    voxels: int
    #: Their volume in millilitres.
    ml: float


class Segmentation:
    """The labels of a case, what they mean, and how they came about."""

    def __init__(self, done, give_back):
        self._done = done
        self._give_back = give_back

    @property
    def labels(self) -> np.ndarray:
        """One label per voxel, ``[z, y, x]``: a new array of uint8, or uint16 where ids need it."""
        return self._done.labels()

    @property
    def image(self) -> Any:
        """The labels as an image of the kind that was given: an array with the same axes, or an image of
        nibabel or SimpleITK at the same place; of files, an array ``[z, y, x]``."""
        return self._give_back(self._done.labels())

    @property
    def structures(self) -> list[Structure]:
        """What can occur, found or not, in ascending id."""
        return [Structure(*each) for each in self._done.structures]

    @property
    def timings(self) -> dict[str, float]:
        """Seconds of wall time of each stage, in the order in which they ran."""
        seconds: dict[str, float] = {}
        for stage, time in self._done.timings:
            seconds[stage] = seconds.get(stage, 0.0) + time
        return seconds

    @property
    def warnings(self) -> list[str]:
        """Sentences about files that are odd but usable."""
        return self._done.warnings

    @property
    def predicted_bytes(self) -> int:
        """Bytes that the case was expected to hold at its largest moment."""
        return self._done.predicted_bytes

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres per voxel, ``[z, y, x]``."""
        return tuple(self._done.spacing)

    @property
    def affine(self) -> np.ndarray:
        """From a voxel's index (x, y, z, 1) to millimetres right, anterior and superior: 4 by 4."""
        return np.array([*self._done.affine, [0.0, 0.0, 0.0, 1.0]])

    def save(self, path, overwrite: bool = False) -> None:
        """Writes the labels as NIfTI, ``.nii`` or ``.nii.gz``, whole or not at all: of a file, the bytes that
        the command line writes. A file that is there stays unless ``overwrite``."""
        self._done.save(path, overwrite)

    def __repr__(self) -> str:
        found = sum(1 for structure in self.structures if structure.voxels)
        return f"<fastnnunet.Segmentation: {found} of {len(self.structures)} structures found>"


class Segmenter:
    """Networks that are open: weights are read once, cases come one after the other.

    One of ``mode`` (such as ``"bone"``), ``model`` (a name that ``python -m fastnnunet models`` lists),
    ``folder`` (one that nnU-Net v2 trained) and ``onnx`` (a file, with ``config``) says what segments. All
    else is what the command line calls by the same name; ``None`` leaves it to mode and model.

    Threads may share one: the interpreter is free while it computes, and its cases take turns. A process
    that has opened one cannot segment in its forks; use multiprocessing's ``"spawn"`` or ``"forkserver"``.

    :param quality: ``"lowest"``, ``"low"``, ``"medium"`` or ``"high"``: how fine a mode's grid is.
    :param structures: names to keep; one that ends in ``*`` stands for all that begin so.
    :param models_dir: a folder of models of one's own.
    :param folds: ``"all"``, or numbers such as ``"0,1,2"``, of a trained folder.
    :param postprocessing: ``"none"``, or a recipe as JSON file.
    :param device: ``"cpu"``, ``"cuda:0"``, ...
    :param precision: ``"f32"``, ``"bf16"``, ``"f16"`` or ``"int8"``.
    :param isa: highest instruction set of the CPU to use.
    :param mirror: axes flipped for test-time averaging, of ``"z"``, ``"y"``, ``"x"``; ``()`` for none.
    :param threads: of this segmenter; one per processor by default.
    :param step_size: distance between tiles as a fraction of the patch, 0.01 to 1.
    :param memory_limit_bytes: what a case may hold; more is an error, or a smaller model of the mode.
    :raises fastnnunet.Error: :class:`UsageError`, :class:`ModelError`, :class:`DeviceError` or
        :class:`MemoryLimitError`.
    """

    def __init__(
        self,
        mode: str | None = None,
        *,
        model: str | None = None,
        folder=None,
        onnx=None,
        config=None,
        quality: str | None = None,
        variant: str | None = None,
        structures: Sequence[str] | None = None,
        models_dir=None,
        folds: str | None = None,
        checkpoint: str | None = None,
        postprocessing=None,
        device: str | None = None,
        precision: str | None = None,
        isa: str | None = None,
        mirror: Sequence[str] | None = None,
        threads: int | None = None,
        step_size: float | None = None,
        gaussian: bool | None = None,
        divide_bone: bool = False,
        skip_air: bool = False,
        memory_limit_bytes: int | None = None,
        gpu_memory_limit_bytes: int | None = None,
    ):
        kinds = {"mode": mode, "model": model, "folder": folder, "onnx": onnx}
        given = [(kind, name) for kind, name in kinds.items() if name is not None]
        if len(given) != 1:
            found = " and ".join(kind for kind, _ in given) or "nothing"
            raise TypeError(f"what segments: found {found}, expected one of mode, model, folder and onnx")
        options = {
            "quality": quality,
            "variant": variant,
            "structures": None if structures is None else list(structures),
            "models_dir": models_dir,
            "folds": folds,
            "checkpoint": checkpoint,
            "postprocessing": postprocessing,
            "device": device,
            "precision": precision,
            "isa": isa,
            "mirror": None if mirror is None else list(mirror),
            "threads": threads,
            "step_size": step_size,
            "gaussian": gaussian,
            "divide_bone": divide_bone,
            "skip_air": skip_air,
            "memory_limit_bytes": memory_limit_bytes,
            "gpu_memory_limit_bytes": gpu_memory_limit_bytes,
        }
        self._open = _native.Segmenter(*given[0], config, options)

    @property
    def labels(self) -> list[Label]:
        """The structures that can come out, in ascending id."""
        return [Label(*each) for each in self._open.labels]

    @property
    def channels(self) -> int:
        """Images per case."""
        return self._open.channels

    @property
    def choice(self) -> str:
        """One sentence: which models answer, and why these; empty where they were asked for by name."""
        return self._open.choice

    @property
    def grade(self) -> str:
        """How much the least trusted model may be trusted; docs/models.md explains the words."""
        return self._open.grade

    def segment(
        self,
        image,
        *,
        affine=None,
        spacing: Sequence[float] | None = None,
        progress: Progress | None = None,
    ) -> Segmentation:
        """Segments one case: an image, or a list of one for each channel of the model.

        :param image: in Hounsfield units for a CT. A NumPy array with ``affine`` (4 by 4, in mm right,
            anterior, superior) has the axes x, y, z; one with ``spacing`` alone (3 numbers in mm) has the axes
            z, y, x of an axial series, slices from the feet up. Images of nibabel and SimpleITK bring their
            place along; a path is a NIfTI file, or a DICOM file, folder or zip. int16 and float32 are read
            where they are and must not be changed meanwhile; others are copied.
        :param progress: called with stage, steps done and steps in all, from another thread; ``False`` stops.
            So does Ctrl-C, in the main thread.
        :raises fastnnunet.Error: :class:`InputError`, :class:`MemoryLimitError`, :class:`DeviceError` or
            :class:`Interrupted`.
        """
        images = _channels(image)
        if all(map(is_path, images)):
            if affine is not None or spacing is not None:
                raise TypeError("affine or spacing: found one for a path, expected that of the file")
            return Segmentation(self._open.segment_files(images, progress), lambda labels: labels)
        lent = [lend(each, affine, spacing) for each in images]
        done = self._open.segment_arrays(lent, progress)
        return Segmentation(done, lent[0].give_back)


def _channels(image) -> list:
    """The images of a case."""
    images = list(image) if isinstance(image, (list, tuple)) else [image]
    if not images:
        raise UsageError("image: found an empty list, expected one for each channel of the model")
    return images


def segment(
    image,
    mode: str | None = None,
    *,
    affine=None,
    spacing: Sequence[float] | None = None,
    progress: Progress | None = None,
    output=None,
    overwrite: bool = False,
    **options,
) -> Any:
    """Segments one image and gives the labels back as the same kind.

    >>> labels = fastnnunet.segment(ct, mode="bone", spacing=(2.5, 0.8, 0.8))    # arrays [z, y, x]
    >>> labels = fastnnunet.segment(nibabel.load("ct.nii.gz"), mode="bone")      # an image of nibabel
    >>> fastnnunet.segment("ct.nii.gz", mode="bone", output="bone.nii.gz")       # files

    :param image: as :meth:`Segmenter.segment` takes it.
    :param output: for a path: the file to write, which is given back; an existing one stays unless
        ``overwrite``.
    :param options: those of :class:`Segmenter`, which keeps its weights for the next case.
    """
    if all(map(is_path, _channels(image))) != (output is not None):
        raise TypeError("output: expected with a path, and only then")
    segmenter = Segmenter(mode, **options)
    if output is not None:
        # Before minutes of work depend on it.
        segmenter._open.check_output(output, overwrite)
    done = segmenter.segment(image, affine=affine, spacing=spacing, progress=progress)
    if output is None:
        return done.image
    done.save(output, overwrite)
    return output
