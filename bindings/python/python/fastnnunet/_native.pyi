"""The part of the package that is Rust; what it takes and gives, the modules beside it say."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

__version__: str

class Segmenter:
    channels: int
    choice: str
    grade: str
    labels: list[tuple[int, str, str | None, str | None, str | None, str | None]]
    def __init__(self, kind: str, name: Any, config: Any, given: dict[str, Any]) -> None: ...
    def check_output(self, path: Any, overwrite: bool) -> None: ...
    def segment_arrays(self, images: Sequence[Any], progress: Callable[[str, int, int], bool | None] | None) -> Segmentation: ...
    def segment_files(self, paths: Sequence[Any], progress: Callable[[str, int, int], bool | None] | None) -> Segmentation: ...

class Segmentation:
    warnings: list[str]
    structures: list[tuple[int, str, int, float]]
    timings: list[tuple[str, float]]
    predicted_bytes: int
    spacing: list[float]
    affine: list[list[float]]
    def labels(self) -> np.ndarray: ...
    def save(self, path: Any, overwrite: bool) -> None: ...
