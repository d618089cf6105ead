"""Properties of this machine. None of them changes a result on the CPU, so none is a param.

torch is imported inside functions: drawing and listing images start without it.
"""

import contextlib
import ctypes
import os
import platform
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from densecl.errors import DenseclError

if TYPE_CHECKING:
    import torch


# Set by an engine that runs stages side by side: how many cores each may use.
CORE_SHARE_ENV = "DENSECL_CORE_SHARE"
MAX_WORKERS = 16


def count_workers() -> int:
    """Number of processes that load images: DENSECL_WORKERS, else one per core, at most 16. Views
    do not depend on it.

    Training processes that share a machine (torchrun's LOCAL_WORLD_SIZE) share its cores, or those
    that an engine left to their stage; a process with one of these cores loads its images itself.
    """
    setting = os.environ.get("DENSECL_WORKERS")
    if setting is None:
        share = os.environ.get(CORE_SHARE_ENV)
        cores = int(share) if share else count_cores()
        workers = min(MAX_WORKERS, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
        return 0 if share and workers <= 1 else max(1, workers)
    if not setting.isdigit():
        raise DenseclError(
            f"DENSECL_WORKERS: found {setting!r}, expected a number of processes, 0 for none"
        )
    return int(setting)


def count_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def get_device() -> "torch.device":
    """The first GPU, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def reuse_freed_memory() -> None:
    """Keep freed blocks in the process: glibc otherwise unmaps each large tensor and faults its
    pages in again.

    The gain is largest for small models; it has no effect on the values.
    """
    import torch

    if sys.platform == "linux" and not torch.cuda.is_available():
        libc = ctypes.CDLL(None)
        libc.mallopt(-4, 0)  # M_MMAP_MAX: no separate mapping for a large block
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: nothing goes back from the top of the heap


def get_device_name(device: "torch.device") -> str:
    """Name of the device for the cost table, e.g. 'NVIDIA H200' or 'x86_64 CPU, 2 threads'."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def reset_peak_memory(device: "torch.device") -> None:
    """Let `read_peak_memory` start at what is in use now, where the system allows it."""
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def read_peak_memory(device: "torch.device") -> int:
    """Peak memory in bytes: of the allocator on a GPU, of the whole process on the CPU."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    # Not ru_maxrss, which starts at the parent's.
    return 1024 * int(status.split("VmHWM:")[1].split()[0])
