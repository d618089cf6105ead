"""Two processes give the losses, memory and accuracy of one; a killed process restarts all."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load

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


def torchrun(processes: int, *options: str) -> list[str]:
    return [
        *(sys.executable, "-m", "torch.distributed.run"),
        *("--nproc-per-node", str(processes)),
        *options,
    ]


def port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def run_ranks(work: str, ranks: int, out: Path) -> list[Any]:
    """What each of some processes of the worker returns."""
    names = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port()}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.training.distributed_worker", work, str(out)],
            cwd=ROOT,
            env=ENVIRONMENT | names | {"RANK": str(rank)},
        )
        for rank in range(ranks)
    ]
    assert [process.wait(120) for process in processes] == [0] * ranks
    return [torch.load(f"{out}-{rank}.pt", weights_only=True) for rank in range(ranks)]


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> list[dict[str, dict[str, dict[str, torch.Tensor]]]]:
    """Results of all engines and cases in each of two processes."""
    return run_ranks("engines", 2, tmp_path_factory.mktemp("ranks") / "of")


@pytest.mark.slow
@pytest.mark.parametrize("name", distributed_worker.CASES)
def test_two_processes_equal_one(two, name):
    before = torch.get_default_dtype()
    try:
        one = distributed_worker.outcomes(name)
    finally:
        torch.set_default_dtype(before)
    first, second = (of["ddp"][name] for of in two)
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


@pytest.mark.slow
@pytest.mark.parametrize("name", distributed_worker.CASES)
def test_ddp_equals_gradients_averaged_by_hand_to_the_bit(two, name):
    for of in two:
        ddp, flat = of["ddp"][name], of["flat"][name]
        different = [k for k in flat if not torch.equal(ddp[k].nan_to_num(), flat[k].nan_to_num())]
        assert not different


@pytest.mark.slow
@pytest.mark.parametrize("name", distributed_worker.CASES)
def test_fsdp_equals_ddp_up_to_rounding(two, name):
    close = {"rtol": 0, "atol": 1e-4 if name.endswith("fp32") else 1e-9}
    for of in two:
        ddp, fsdp = of["ddp"][name], of["fsdp"][name]
        assert set(fsdp) == set(ddp)
        for key in set(ddp) - {"metrics"}:
            torch.testing.assert_close(
                fsdp[key], ddp[key], **close, msg=lambda message, key=key: f"{key}: {message}"
            )


@pytest.mark.slow
def test_four_ranks_resume_to_the_same_bits(tmp_path):
    """Without the rehearsal DDP does not: if it does one day, the rehearsal can go."""
    expected = {"ddp": True, "ddp without rehearsal": False, "fsdp": True}
    assert run_ranks("resumed", 4, tmp_path / "of") == [expected] * 4


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


class FinishedRun(NamedTuple):
    place: Path
    weights: dict[str, bytes]
    history: pd.DataFrame


@pytest.fixture(scope="module")
def four(tmp_path_factory) -> Iterator[FinishedRun]:
    """A run of `train.processes: 4` that nothing interrupted."""
    place = tmp_path_factory.mktemp("four")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        prepare(place, checkpoint_minutes=1e-9, processes=4, epochs=2, drop_path=0.1)
        whole = start_command(place, *STEPS, "train", "dense", "0")
        assert whole.wait() == 0, whole.read_stderr()
        assert whole.read_stderr().count("epoch 2/2") == 1  # only rank 0 prints
        yield FinishedRun(place, *left(place))


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
def test_a_killed_process_restarts_all_from_the_checkpoint(four):
    again = start_command(
        four.place, *torchrun(4, "--max-restarts", "2"), "-m", "steps", "train", "dense", "0"
    )
    wait_until(lambda: list_checkpoints(four.place))
    os.kill(find_rank(four.place, 1), signal.SIGKILL)
    assert again.wait() == 0, again.read_stderr()
    assert "resumes after step" in again.read_stderr()
    assert left(four.place)[0] == four.weights
    assert left(four.place)[1].equals(four.history)
    wait_until(lambda: not list_processes(four.place), 10)
    assert not any((four.place / "checkpoints").iterdir())


@pytest.mark.slow
def test_two_nodes_give_the_weights_of_one_with_as_many_ranks(four):
    """One agent of torchrun per node, as under a scheduler; here both on this machine."""
    meeting = ("--nnodes", "2", "--rdzv-backend", "c10d", "--rdzv-id", "run")
    address = ("--rdzv-endpoint", f"127.0.0.1:{port()}", "--local-addr", "127.0.0.1")
    nodes = [
        start_command(
            four.place, *torchrun(2, *meeting, *address), "-m", "steps", "train", "dense", "0"
        )
        for _ in range(2)
    ]
    for node in nodes:
        assert node.wait() == 0, node.read_stderr()
    assert left(four.place)[0] == four.weights
    assert left(four.place)[1].equals(four.history)


SRUN = """#!/bin/sh
# As srun with one task on each of two nodes: the highest exit status.
while [ "${1#--}" != "$1" ]; do shift; done
"$@" & first=$!
"$@" & second=$!
wait $first; status=$?
wait $second || status=$?
exit $status
"""


@pytest.mark.slow
def test_a_slurm_job_of_two_nodes_starts_processes_on_both(four, monkeypatch, tmp_path):
    """`train.processes: 2` on each of two nodes; only `srun` itself is a stand-in."""
    (tmp_path / "srun").write_text(SRUN)
    (tmp_path / "srun").chmod(0o755)
    job = {"DENSECL_NODES": "2", "SLURM_JOB_ID": "7"}
    path = {"PATH": f"{tmp_path}:{ENVIRONMENT['PATH']}"}
    monkeypatch.chdir(four.place)
    prepare(four.place, checkpoint_minutes=1e-9, processes=2, epochs=2, drop_path=0.1)
    run = start_command(four.place, *STEPS, "train", "dense", "0", **job, **path)
    assert run.wait() == 0, run.read_stderr()
    assert left(four.place)[0] == four.weights
    assert left(four.place)[1].equals(four.history)


@pytest.mark.slow
def test_fsdp_resumes_to_the_same_bits_and_agrees_with_one_process(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    how = {"processes": 2, "parallel": "fsdp", "checkpoint_activations": True}
    what = {"epochs": 1, "warmup_epochs": 0.5, "ema_decay": 0.9}
    what |= {"drop_path": 0.0}  # its random stream is a rank's own
    command = (*STEPS, "train", "dense", "0")
    prepare(tmp_path, checkpoint_minutes=1e-9, **how, **what)
    stopped = start_command(tmp_path, *command)
    wait_until(lambda: list_checkpoints(tmp_path))
    stopped.send_signal(signal.SIGTERM)
    assert stopped.wait() == 75, stopped.read_stderr()
    resumed = start_command(tmp_path, *command)
    assert resumed.wait() == 0, resumed.read_stderr()
    assert "resumes after step" in resumed.read_stderr()
    weights, history = left(tmp_path)

    whole = start_command(tmp_path, *command)
    assert whole.wait() == 0, whole.read_stderr()
    assert left(tmp_path)[0] == weights
    assert left(tmp_path)[1].equals(history)

    prepare(tmp_path, **what)  # one process; the plan and the fingerprint are the same
    alone = start_command(tmp_path, *command)
    assert alone.wait() == 0, alone.read_stderr()
    alone_weights, alone_history = left(tmp_path)
    assert alone_weights["config.json"] == weights["config.json"]
    for name in ("model.safetensors", "heads.safetensors"):
        tensors, expected = load(weights[name]), load(alone_weights[name])
        assert {k: (v.shape, v.dtype) for k, v in tensors.items()} == {
            k: (v.shape, v.dtype) for k, v in expected.items()
        }
    losses = ["loss", "classification_loss", "contrastive_loss"]
    assert np.allclose(history[losses], alone_history[losses], rtol=0, atol=1e-4)


@pytest.mark.slow
def test_validation_counts_every_image_once_and_one_process_resumes_from_two(staged):
    both = start_command(staged, *torchrun(2), "-m", "steps", "train", "none", "0")
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
