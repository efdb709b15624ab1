"""Segments CT volumes with nnU-Net models, in one package without PyTorch.

>>> import fastnnunet
>>> labels = fastnnunet.segment(image, mode="bone")

:func:`segment` is one call, :class:`Segmenter` keeps weights between cases, :mod:`fastnnunet.nnunet` stands in for
``nnUNetPredictor``, and ``python -m fastnnunet`` is the command line. For research; not a medical device.
"""

from ._errors import (
    DeviceError,
    Error,
    InputError,
    Interrupted,
    MemoryLimitError,
    ModelError,
    OutputError,
    UsageError,
)
from ._native import __version__
from ._segmenter import Label, Segmentation, Segmenter, Structure, segment

__all__ = [
    "DeviceError",
    "Error",
    "InputError",
    "Interrupted",
    "Label",
    "MemoryLimitError",
    "ModelError",
    "OutputError",
    "Segmentation",
    "Segmenter",
    "Structure",
    "UsageError",
    "__version__",
    "segment",
]
