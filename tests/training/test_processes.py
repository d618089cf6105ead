"""Two processes give the losses, memory and accuracy of one; a killed process restarts all."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from densecl import distributed
from tests.training import distributed_worker
from tests.training.test_resume import (
    list_checkpoints,
    list_processes,
    needs_proc,
    start_command,
    wait_until,
)
from tests.training.training_project import ENVIRONMENT, ROOT, STEPS, prepare

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]


def port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> list[dict[str, dict[str, torch.Tensor]]]:
    """Results of all cases in each of two processes."""
    out = tmp_path_factory.mktemp("ranks") / "of"
    names = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port()}
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.training.distributed_worker", str(out)],
            cwd=ROOT,
            env=ENVIRONMENT | names | {"RANK": str(rank)},
        )
        for rank in range(2)
    ]
    assert [each.wait(120) for each in both] == [0, 0]
    return [torch.load(f"{out}-{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("name", distributed_worker.CASES)
def test_two_processes_equal_one(two, name):
    before = torch.get_default_dtype()
    try:
        one = distributed_worker.outcomes(name)
    finally:
        torch.set_default_dtype(before)
    first, second = (of[name] for of in two)
    assert all(
        torch.equal(first[key].nan_to_num(), second[key].nan_to_num()) for key in one
    )  # to the bit
    close = {"rtol": 0, "atol": 1e-4 if name.endswith("fp32") else 1e-9}
    for key in set(one) - {"images", "written", "metrics"}:
        torch.testing.assert_close(
            first[key], one[key], **close, msg=lambda message, key=key: f"{key}: {message}"
        )
    torch.testing.assert_close(  # gradient alignment is computed in fp32
        first["metrics"].double(), one["metrics"].double(), rtol=1e-4, atol=1e-5, equal_nan=True
    )
    assert all(torch.equal(first[key], one[key]) for key in {"images", "written"} & set(one))


def test_the_filtered_case_has_unequal_numbers_of_queries(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "densecl.contrast.contrastive.weight_by_queries",
        lambda contrast, queries: seen.append(queries) or contrast,
    )
    before = torch.get_default_dtype()
    try:
        distributed_worker.outcomes("filtered")
    finally:
        torch.set_default_dtype(before)
    assert len(set(seen)) > 1


@pytest.mark.parametrize(("size", "parts"), [(1, 1), (2, 1), (2, 2), (4, 1)])
def test_shards_partition_each_micro_batch(monkeypatch, size, parts):
    monkeypatch.setattr(distributed, "get_world_size", lambda: size)
    items, shares = list(range(24)), []
    for rank in range(size):
        monkeypatch.setattr(distributed, "get_rank", lambda rank=rank: rank)
        shares.append(distributed.shard_epoch(items, 8, parts))
    whole, own = 8 // parts, 8 // parts // size
    for part in range(24 // whole):
        held = [image for of in shares for image in of[part * own : (part + 1) * own]]
        assert held == items[part * whole : (part + 1) * whole]


@pytest.fixture
def staged(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return prepare(tmp_path, checkpoint_minutes=1e-9, processes=2, drop_path=0.1)


def left(place: Path) -> tuple[dict[str, bytes], pd.DataFrame]:
    weights = {p.name: p.read_bytes() for p in (place / "models/dense/seed-0").iterdir()}
    return weights, pd.read_csv(place / "reports/training/dense-0/history.csv")


def find_rank(place: Path, rank: int) -> int:
    """The training process of a rank at work in a folder, by its environment."""
    for process in sorted(list_processes(place)):  # before its loader's workers
        if f"RANK={rank}".encode() in Path(f"/proc/{process}/environ").read_bytes().split(b"\0"):
            return process
    raise AssertionError(f"no rank {rank}")


@needs_proc
@pytest.mark.slow
def test_a_killed_process_restarts_all_from_the_checkpoint(staged):
    whole = start_command(staged, *STEPS, "train", "dense", "0")  # train.processes: 2
    assert whole.wait() == 0, whole.read_stderr()
    assert whole.read_stderr().count("epoch 4/4") == 1  # only rank 0 prints
    weights, history = left(staged)

    again = start_command(
        staged, *TORCHRUN, "--max-restarts", "2", "-m", "steps", "train", "dense", "0"
    )
    wait_until(lambda: list_checkpoints(staged))
    os.kill(find_rank(staged, 1), signal.SIGKILL)
    assert again.wait() == 0, again.read_stderr()
    assert "resumes after step" in again.read_stderr()
    assert left(staged)[0] == weights
    assert left(staged)[1].equals(history)
    wait_until(lambda: not list_processes(staged), 10)
    assert not any((staged / "checkpoints").iterdir())


@pytest.mark.slow
def test_validation_counts_every_image_once_and_one_process_resumes_from_two(staged):
    both = start_command(staged, *TORCHRUN, "-m", "steps", "train", "none", "0")
    wait_until(lambda: list_checkpoints(staged))
    both.send_signal(signal.SIGTERM)
    both.wait()
    prepare(
        staged, checkpoint_minutes=1e-9, drop_path=0.1
    )  # processes: 1, and neither plan nor fingerprint another
    alone = start_command(staged, *STEPS, "train", "none", "0")
    assert alone.wait() == 0, alone.read_stderr()
    assert "resumes after step" in alone.read_stderr()
    history = pd.read_csv(staged / "reports/training/none-0/history.csv")
    assert ((history["top1/imagenet"] * 12) % 1 == 0).all()  # of 12 images: no duplicate is counted
