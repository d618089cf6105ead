"""Start the processes that train one model, as torchrun does, and pass on their exit status."""

import logging
import sys

from densecl.errors import Interrupted, RetryLater

MAX_RESTARTS = 3  # after a process was killed


def launch_processes(processes: int, arguments: list[str]) -> None:
    """Run python with `arguments` in several processes of this machine.

    If one is killed, all restart from the last checkpoint, up to MAX_RESTARTS times. torchrun's own
    restarts would also repeat an error of the user and hide the exit status.

    Raises:
        SystemExit: a process ended with an error; carries its exit status.
        RetryLater: a process was killed once more than MAX_RESTARTS times.
        Interrupted: this process received a signal.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # Errors are reported in one line.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
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
            if failure.exitcode > 0:
                raise SystemExit(failure.exitcode) from None  # it has printed why
            if not restarts_left:
                raise RetryLater(
                    f"process {rank} was killed (signal {-failure.exitcode}) "
                    f"{MAX_RESTARTS + 1} times; run the same command to resume"
                ) from None
            logging.getLogger(__name__).warning(
                "process %d of %d was killed (signal %d): all restart from the last checkpoint; "
                "%d more restarts",
                rank,
                processes,
                -failure.exitcode,
                restarts_left - 1,
            )
        except SignalException as error:
            raise Interrupted(
                f"{error.sigval.name}: stopped; run the same command to resume"
            ) from None
        else:
            return
