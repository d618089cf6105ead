"""Data-parallel training: each rank takes its rows of every batch.

With one process every function returns its input. R: rows of this rank.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from densecl.errors import DenseclError, RetryLater

T = TypeVar("T")


def init_process_group() -> None:
    """Join the process group that a launcher (torchrun, accelerate) has set up, if any.

    gloo for tensors on CPUs, nccl on GPUs. Raises DenseclError if this rank has no GPU of its own.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        return
    if torch.cuda.is_available():
        local_rank, gpu_count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if local_rank >= gpu_count:
            raise DenseclError(
                f"process {local_rank} of this machine: found {gpu_count} GPUs, expected one per "
                f"process; start {gpu_count} processes"
            )
        torch.cuda.set_device(local_rank)
    run_collective(_join_process_group)


def _join_process_group() -> None:
    store, process_rank, world_size = next(dist.rendezvous("env://"))
    # The launcher of torch 2.15 keeps its store over restarts: without a prefix, each process would
    # wait for an address of the previous attempt.
    store = dist.PrefixStore(f"attempt_{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=process_rank, world_size=world_size)


def destroy_process_group() -> None:
    """Leave the process group, whether or not the other ranks have finished."""
    if dist.is_initialized():
        dist.destroy_process_group()


def get_rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def get_world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main_process() -> bool:
    """True on rank 0, the process that writes."""
    return get_rank() == 0


def shard_epoch(items: Sequence[T], batch_size: int, parts: int) -> list[T]:
    """The items of an epoch for this rank: its slice of each of the `parts` of each batch.

    A part (micro-batch) holds the same images for any world size.
    """
    part_size = batch_size // parts
    local_size = part_size // get_world_size()
    starts = range(get_rank() * local_size, len(items), part_size)
    return [item for start in starts for item in items[start : start + local_size]]


def shard_rows(rows: Tensor) -> Tensor:
    """[R, ...]: the slice of this rank of rows [world size * R, ...] that all ranks hold."""
    return rows.tensor_split(get_world_size())[get_rank()]


def all_gather_rows(*columns: Tensor) -> tuple[Tensor, ...]:
    """[sum of R, ...] of each column [R, ...]: the rows of all ranks in rank order.

    The number of rows may differ between ranks.
    """
    if get_world_size() == 1:
        return columns
    counts = [int(count) for count in all_gather(torch.tensor([len(columns[0])]))]
    return tuple(_gather_padded(column, counts) for column in columns)


def _gather_padded(rows: Tensor, counts: list[int]) -> Tensor:
    padded = rows.new_zeros(max(counts), *rows.shape[1:])
    padded[: len(rows)] = rows
    return torch.cat([part[:count] for part, count in zip(all_gather(padded), counts, strict=True)])


def all_gather(tensor: Tensor) -> list[Tensor]:
    """The tensor of each rank; all have the same shape."""
    parts = [torch.empty_like(tensor) for _ in range(get_world_size())]
    run_collective(lambda: dist.all_gather(parts, tensor.contiguous()))
    return parts


def all_reduce_mean(tensor: Tensor) -> Tensor:
    """Mean over the ranks, in place."""
    if get_world_size() > 1:
        run_collective(lambda: dist.all_reduce(tensor))
        tensor /= get_world_size()
    return tensor


def all_reduce_sum(values: Iterable[float]) -> list[float]:
    """Sums over the ranks of Python numbers."""
    totals = torch.tensor(list(values), dtype=torch.float64)
    if get_world_size() > 1:
        run_collective(lambda: dist.all_reduce(totals))
    return totals.tolist()


def any_rank(flag: bool) -> bool:
    """True if the flag is set on any rank."""
    return all_reduce_sum([float(flag)])[0] > 0


@torch.no_grad()
def average_gradients(parameters: Sequence[Tensor]) -> None:
    """Replace every gradient by its mean over the ranks, in one all-reduce.

    Not DistributedDataParallel: the model is called by its parts (`forward_features`, heads, a
    second backward pass for the gradient alignment), which DDP's hooks on `forward` do not see. The
    overlap that is lost is small for a small ViT on one machine.
    """
    if get_world_size() == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = all_reduce_mean(torch.cat([g.flatten() for g in gradients]))
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def broadcast_bytes(data: bytes | None) -> bytes | None:
    """The bytes of rank 0, or None, on every rank."""
    if get_world_size() == 1:
        return data
    objects = [data]
    run_collective(lambda: dist.broadcast_object_list(objects, src=0, device=torch.device("cpu")))
    return objects[0]


def run_collective(collective: Callable[[], object]) -> None:
    """Run a collective operation; raise RetryLater if another rank died."""
    try:
        collective()
    except RuntimeError as error:
        raise RetryLater(
            f"process {os.environ.get('RANK', '0')} of {os.environ.get('WORLD_SIZE', '1')}: "
            f"another process of this training run is gone or cannot be reached "
            f"({str(error).splitlines()[0][:120]}); torchrun with --max-restarts restarts all from "
            f"the last checkpoint, else run the same command to resume"
        ) from None
