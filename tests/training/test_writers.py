"""Two jobs that train the same model, as where the one of a dead node lives on: the later one goes
on, and the earlier one writes nothing more.
"""

import pytest
import torch

from densecl.errors import RetryLater
from densecl.training.checkpoint import WRITER_ENV, CheckpointFolder, lock_checkpoints


def build_state(steps: int) -> dict[str, object]:
    return {"compatibility": {}, "steps_done": steps, "model": {"w": torch.full((3,), steps)}}


def test_the_earlier_writer_neither_renames_nor_removes(tmp_path, monkeypatch):
    folder = tmp_path / "fingerprint"
    monkeypatch.setenv(WRITER_ENV, "Slurm job 7, restart 0")
    with lock_checkpoints(folder) as first:
        first.save(build_state(1))
    monkeypatch.setenv(WRITER_ENV, "Slurm job 7, restart 1")
    with lock_checkpoints(folder) as second:
        second.save(build_state(2))
        names = sorted(path.name for path in folder.iterdir())
        content = second.list_paths()[-1].read_bytes()
        monkeypatch.setenv(WRITER_ENV, "Slurm job 7, restart 0")
        with pytest.raises(RetryLater, match=r"writer: found Slurm job 7, restart 1, expected Slu"):
            first.save(build_state(2))
        with pytest.raises(RetryLater, match="it goes on there, not here"):
            first.remove_all()
        assert sorted(path.name for path in folder.iterdir()) == names
        assert second.list_paths()[-1].read_bytes() == content


def test_without_a_cluster_nothing_is_claimed(tmp_path, monkeypatch):
    monkeypatch.delenv(WRITER_ENV, raising=False)
    with lock_checkpoints(tmp_path / "fingerprint") as folder:
        folder.save(build_state(1))
    assert not (tmp_path / "fingerprint/writer").exists()
    CheckpointFolder(tmp_path / "fingerprint").remove_all()
    assert not (tmp_path / "fingerprint").exists()
