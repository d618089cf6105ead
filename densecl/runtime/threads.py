"""Threads of torch, and how they wait for each other. Imports no torch: OpenMP reads the
environment when torch is imported.

Sums depend on the number of threads in their last bits, so it follows from params and defaults, not
from the number of cores.
"""

import os
from collections.abc import MutableMapping

# One of these set by the user is left alone.
WAIT_POLICIES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def set_openmp_defaults(environment: MutableMapping[str, str] = os.environ) -> None:
    """One thread per process, and threads that sleep while they wait, unless the user has set
    otherwise; child processes inherit both.

    Threads that spin while they wait take the cores that others need, those of the other threads
    too (docs/performance.md, P18).
    """
    environment.setdefault("OMP_NUM_THREADS", "1")
    if not any(name in environment for name in WAIT_POLICIES):
        environment["OMP_WAIT_POLICY"] = "PASSIVE"


def set_training_threads(threads: int | None) -> None:
    """Apply `train.threads` to this process. None: one thread on a CPU; no change on a GPU, whose
    host computes little.
    """
    import torch

    if threads or not torch.cuda.is_available():
        torch.set_num_threads(threads or 1)
