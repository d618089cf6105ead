"""Features of many images in a file, so that memory does not grow with their number."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from densecl.training.train_state import TrainingError

BYTES_PER_VALUE = 4  # fp32


class FeatureFile:
    """Features [B, E] in fp32 in a temporary file; read like a tensor by `shape` and `split`.

    Plain reads instead of a memory map, whose pages would count as memory of the process. Raises
    TrainingError if the file cannot be written or read.
    """

    def __init__(self, path: Path, rows: int, dim: int) -> None:
        self.path, self.shape, self.rows_written = path, (rows, dim), 0

    def __enter__(self) -> Self:
        with self._explain_failure():
            self.file = self.path.open("w+b")
        return self

    def __exit__(self, *_: object) -> None:
        with self._explain_failure():
            self.path.unlink(missing_ok=True)
            self.file.close()

    def append(self, features: Tensor) -> None:
        """Write rows [R, E] after those already written."""
        with self._explain_failure():
            self.file.write(features.float().cpu().contiguous().numpy().data)
            self.file.flush()
        self.rows_written += len(features)

    def split(self, rows: int) -> Iterator[Tensor]:
        """Chunks of `rows` rows in order, the last of fewer; each is a tensor of its own."""
        total, dim = self.shape
        for start in range(0, total, rows):
            chunk = np.empty((min(rows, total - start), dim), np.float32)
            with self._explain_failure():
                self.file.seek(start * dim * BYTES_PER_VALUE)
                if self.file.readinto(chunk.data) != chunk.nbytes:
                    raise OSError(f"found {self.rows_written:,} rows, expected {total:,}")
            yield torch.from_numpy(chunk)

    @contextmanager
    def _explain_failure(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            rows, dim = self.shape
            raise TrainingError(
                f"{self.path}: {error.strerror or error}; the features of the linear probe need "
                f"{rows * dim * BYTES_PER_VALUE / 1e9:.1f} GB there until it is fitted; make room "
                "and run the same command to resume after the last epoch"
            ) from None
