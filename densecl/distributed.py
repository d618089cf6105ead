"""Several processes that train one model as one process would: each takes its rows of every batch.

With one process every function gives back what it is given. Letters: R rows of this process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from densecl.errors import DenseclError, Stopped

T = TypeVar("T")


class RankLost(Stopped):
    """Another process of this training is gone."""


def start() -> None:
    """Join the others where a launcher (torchrun, accelerate) has named them; gloo for tensors on
    CPUs, nccl on GPUs.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        return
    if torch.cuda.is_available():
        local, found = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if local >= found:
            raise DenseclError(
                f"process {local} of this machine: found {found} GPUs, expected one a process; "
                f"start {found} processes"
            )
        torch.cuda.set_device(local)
    reach(_join)


def _join() -> None:
    store, own, whole = next(dist.rendezvous("env://"))
    # torch 2.15's launcher keeps its store over restarts: without a prefix each process would wait
    # for the address that
    # the one before it left there.
    store = dist.PrefixStore(f"attempt_{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=own, world_size=whole)


def end() -> None:
    """Leave; the others may still be at work."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def first() -> bool:
    """Is this the process that writes?"""
    return rank() == 0


def share(items: Sequence[T], batch_size: int, parts: int) -> list[T]:
    """Items of an epoch for this process: its slice of each of the `parts` of each batch.

    So a part is the same images whatever the number of processes.
    """
    whole = batch_size // parts
    own = whole // size()
    starts = range(rank() * own, len(items), whole)
    return [item for start in starts for item in items[start : start + own]]


def own_rows(rows: Tensor) -> Tensor:
    """[R, ...]: this process's slice of what all drew alike, [size * R, ...]."""
    return rows.tensor_split(size())[rank()]


def all_rows(*columns: Tensor) -> tuple[Tensor, ...]:
    """[sum of R, ...] of each column [R, ...]: the rows of all processes in their order, the same
    everywhere.

    Each process may bring another number of rows.
    """
    if size() == 1:
        return columns
    counts = [int(count) for count in every(torch.tensor([len(columns[0])]))]
    return tuple(_joined(column, counts) for column in columns)


def _joined(rows: Tensor, counts: list[int]) -> Tensor:
    padded = rows.new_zeros(max(counts), *rows.shape[1:])
    padded[: len(rows)] = rows
    return torch.cat([part[:count] for part, count in zip(every(padded), counts, strict=True)])


def every(values: Tensor) -> list[Tensor]:
    """The tensor of each process, all of one shape."""
    parts = [torch.empty_like(values) for _ in range(size())]
    reach(lambda: dist.all_gather(parts, values.contiguous()))
    return parts


def mean(values: Tensor) -> Tensor:
    """Mean over the processes, in place of `values`."""
    if size() > 1:
        reach(lambda: dist.all_reduce(values))
        values /= size()
    return values


def total(values: Iterable[float]) -> list[float]:
    """Sum over the processes of numbers that lie on the host."""
    summed = torch.tensor(list(values), dtype=torch.float64)
    if size() > 1:
        reach(lambda: dist.all_reduce(summed))
    return [float(value) for value in summed]


def anywhere(found: bool) -> bool:
    """Has any process found it?"""
    return total([float(found)])[0] > 0


@torch.no_grad()
def average_gradients(trained: Sequence[Tensor]) -> None:
    """Replace every gradient by its mean over the processes, in one call.

    Not DistributedDataParallel: the model is called by its parts (`forward_features`, heads, a
    second time for the gradients' conflict), which DDP's hooks on `forward` do not see; what it
    hides behind the backward pass of a small ViT on one machine is little, and one flat sum is easy
    to hold against one process.
    """
    if size() == 1:
        return
    gradients = [each.grad for each in trained if each.grad is not None]
    flat = mean(torch.cat([g.flatten() for g in gradients]))
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def broadcast(data: bytes | None) -> bytes | None:
    """The first process's bytes, or None, everywhere."""
    if size() == 1:
        return data
    length = torch.tensor([-1 if data is None else len(data)])
    reach(lambda: dist.broadcast(length, 0))
    if int(length) < 0:
        return None
    values = (
        torch.frombuffer(bytearray(data), dtype=torch.uint8)
        if data is not None and first()
        else torch.empty(int(length), dtype=torch.uint8)
    )
    reach(lambda: dist.broadcast(values, 0))
    return values.numpy().tobytes()


def reach(call: Callable[[], object]) -> None:
    """Call what needs the others; RankLost where one of them is gone."""
    try:
        call()
    except RuntimeError as error:
        raise RankLost(
            f"process {os.environ.get('RANK', '0')} of {os.environ.get('WORLD_SIZE', '1')}: "
            f"another process of this training "
            f"is gone or cannot be reached ({str(error).splitlines()[0][:120]}); torchrun with "
            f"--max-restarts starts all "
            "again from the last checkpoint, else run the same command again"
        ) from None
