"""Start the processes that train one model together, as torchrun does, and end as they end."""

from __future__ import annotations

import logging
import os
import sys

from densecl.errors import DenseclError, Interrupted, RetryLater
from densecl.runtime.hardware import count_cores

MAX_RESTARTS = 3  # times that a killed process is made good for


class ChildProcessesFailed(DenseclError):
    """The processes ended; what went wrong is told already."""

    def __init__(self, status: int) -> None:
        super().__init__("")
        self.status = status


def is_launched() -> bool:
    """Is this one of several processes that torchrun, accelerate or `launch_processes` started?"""
    return "WORLD_SIZE" in os.environ


def launch_processes(processes: int, arguments: list[str]) -> None:
    """Run python with `arguments` in so many processes of this machine. A killed one restarts all
    from the last checkpoint.

    ChildProcessesFailed with their exit status where they stop by themselves: a mistake is not
    tried again.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(
        logging.CRITICAL
    )  # what went wrong is told in one line
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, count_cores() // processes)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.5,
    )
    for restarts_left in range(MAX_RESTARTS, -1, -1):
        try:
            elastic_launch(config, sys.executable)(*arguments)
        except ChildFailedError as error:
            rank, failure = min(error.failures.items(), key=lambda item: item[1].timestamp)
            if failure.exitcode >= 0 or not restarts_left:
                raise (
                    ChildProcessesFailed(failure.exitcode)
                    if failure.exitcode > 0
                    else RetryLater(
                        f"process {rank} was killed (signal {-failure.exitcode}) "
                        f"{MAX_RESTARTS + 1} "
                        f"times; the same command goes on"
                    )
                ) from None
            message = f"process {rank} of {processes} was killed (signal {-failure.exitcode})"
            print(
                f"{message}: all start again from the last checkpoint; {restarts_left - 1} more "
                f"times",
                file=sys.stderr,
                flush=True,
            )
        except SignalException as error:
            raise Interrupted(
                f"{error.sigval.name}: stopped; the same command goes on from the last checkpoint"
            ) from None
        else:
            return
