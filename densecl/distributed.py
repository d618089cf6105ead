"""Data-parallel training: each rank takes its rows of every batch.

With one process every function returns its input. R: rows of this rank.
"""

import os
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from densecl.errors import DenseclError, RetryLater


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
    # One backend only: what NCCL can do goes not over the slower gloo.
    backend = "nccl" if torch.cuda.is_available() else "gloo"
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


def shard_epoch(
    rows: NDArray[np.int64] | Sequence[int], batch_size: int, parts: int
) -> NDArray[np.int64]:
    """The rows of an epoch for this rank: its slice of each of the `parts` of each batch.

    A part (micro-batch) holds the same images for any world size.
    """
    part_size, order = batch_size // parts, np.asarray(rows, np.int64)
    local_size = part_size // get_world_size()
    own = slice(get_rank() * local_size, (get_rank() + 1) * local_size)
    end = len(order) - len(order) % part_size
    whole = order[:end].reshape(-1, part_size)[:, own].reshape(-1)
    return np.concatenate([whole, order[end:][own]])


def shard_rows(rows: Tensor) -> Tensor:
    """[R, ...]: the slice of this rank of rows [world size * R, ...] that all ranks hold."""
    return rows.tensor_split(get_world_size())[get_rank()]


def all_gather(*tensors: Tensor) -> tuple[Tensor, ...]:
    """[ranks, ...] of each tensor, in rank order and without gradient, in one collective.

    The tensors of all ranks have the same shapes and dtypes.
    """
    packed = torch.cat([t.detach().contiguous().flatten().view(torch.uint8) for t in tensors])
    gathered = packed.new_empty(get_world_size() * len(packed))
    run_collective(lambda: dist.all_gather_into_tensor(gathered, packed))
    columns = gathered.view(-1, len(packed)).split(
        [t.numel() * t.element_size() for t in tensors], dim=1
    )
    return tuple(
        # A copy, for its alignment.
        column.clone(memory_format=torch.contiguous_format)
        .flatten()
        .view(t.dtype)
        .view(get_world_size(), *t.shape)
        for column, t in zip(columns, tensors, strict=True)
    )


def all_reduce_mean(tensor: Tensor) -> Tensor:
    """Mean over the ranks, in place."""
    if get_world_size() > 1:
        run_collective(lambda: dist.all_reduce(tensor))
        tensor /= get_world_size()
    return tensor


def all_reduce_sum(values: Iterable[float]) -> list[float]:
    """Sums over the ranks of Python numbers."""
    device = "cuda" if dist.is_initialized() and dist.get_backend() == "nccl" else "cpu"
    totals = torch.tensor(list(values), dtype=torch.float64, device=device)
    if get_world_size() > 1:
        run_collective(lambda: dist.all_reduce(totals))
    return totals.tolist()


def any_rank(flag: bool) -> bool:
    """True if the flag is set on any rank."""
    return all_reduce_sum([float(flag)])[0] > 0


def broadcast_bytes(data: bytes | None) -> bytes | None:
    """The bytes of rank 0, or None, on every rank."""
    if get_world_size() == 1:
        return data
    objects = [data]
    run_collective(lambda: dist.broadcast_object_list(objects, src=0))
    return objects[0]


def run_collective(collective: Callable[[], object]) -> None:
    """Run a collective operation; raise RetryLater if another rank died."""
    try:
        collective()
    except RuntimeError as error:
        raise build_lost_rank_error(error) from None


def is_lost_rank(error: RuntimeError) -> bool:
    """Whether an error, of a backward pass too, says that another rank cannot be reached."""
    return isinstance(error, dist.DistError) or (dist.is_initialized() and "gloo" in str(error))


def build_lost_rank_error(error: RuntimeError) -> RetryLater:
    """Says what to do."""
    return RetryLater(
        f"process {os.environ.get('RANK', '0')} of {os.environ.get('WORLD_SIZE', '1')}: "
        f"another process of this training run is gone or cannot be reached "
        f"({str(error).splitlines()[0][:120]}); torchrun with --max-restarts restarts all from "
        f"the last checkpoint, else run the same command to resume"
    )
