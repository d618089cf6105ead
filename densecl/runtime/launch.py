"""Start the processes that train one model, as torchrun does, and pass on their exit status."""

import logging
import os
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from densecl.errors import EXIT_RETRY, Interrupted, RetryLater

MAX_RESTARTS = 3  # after a process was killed
# Environment variable: host and port at which the agents of the nodes of one job meet.
RENDEZVOUS_ENV = "DENSECL_RENDEZVOUS"
NODES_ENV = "DENSECL_NODES"  # set by pipelines/engines/slurm.py
# Environment variable: file, seen by all nodes, of the exit status of the first error.
ERROR_STATUS_ENV = "DENSECL_ERROR_STATUS"


def count_nodes() -> int:
    """Nodes on which a stage starts processes: those of its Slurm job (`cluster.nodes`), else 1.

    Of Slurm's own variables none tells: they are also set within an allocation of something else.
    """
    return int(os.environ.get(NODES_ENV, "1"))


def launch_processes(processes: int, arguments: list[str]) -> None:
    """Run python with `arguments` in several processes of this machine, or of each node of a job.

    If one is killed, all restart from the last checkpoint, up to MAX_RESTARTS times; those of
    several nodes end, to be queued again. torchrun's own restarts would also repeat an error of the
    user and hide the exit status.

    Raises:
        SystemExit: a process ended with an error; carries its exit status.
        RetryLater: a process was killed and no restart is left.
        Interrupted: this process received a signal.
    """
    nodes, rendezvous = count_nodes(), os.environ.get(RENDEZVOUS_ENV)
    if nodes > 1 and not rendezvous:
        launch_agents(nodes, arguments)
        return
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # Errors are reported in one line.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=nodes,
        max_nodes=nodes,
        nproc_per_node=processes,
        run_id=os.environ.get("SLURM_JOB_ID", "train"),
        rdzv_backend="c10d",
        rdzv_endpoint=rendezvous or "localhost:0",
        max_restarts=0,
        monitor_interval=0.5,
    )
    for restarts_left in range(MAX_RESTARTS if nodes == 1 else 0, -1, -1):
        try:
            elastic_launch(config, sys.executable)(*arguments)
        except ChildFailedError as error:
            rank, failure = min(error.failures.items(), key=lambda item: item[1].timestamp)
            if failure.exitcode > 0:
                _record_error(failure.exitcode)
                raise SystemExit(failure.exitcode) from None  # it has printed why
            if not restarts_left:
                raise RetryLater(
                    f"process {rank} was killed (signal {-failure.exitcode}) and no restart is "
                    "left; run the same command to resume"
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


def launch_agents(nodes: int, arguments: list[str]) -> None:
    """Run python with `arguments` once on each node of a Slurm job, where it launches processes.

    The working directory must be one that all nodes share. Raises as `launch_processes`.
    """
    with socket.socket() as free:
        free.bind(("", 0))
        address = f"{socket.gethostname()}:{free.getsockname()[1]}"
    options = [f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--overlap"]
    if cpus := os.environ.get("SLURM_CPUS_PER_TASK"):  # from Slurm 22.05 on, steps inherit it not
        options.append(f"--cpus-per-task={cpus}")
    with tempfile.TemporaryDirectory(prefix=".agents-", dir=Path.cwd()) as shared:
        first_error = Path(shared, "status")
        variables = {RENDEZVOUS_ENV: address, ERROR_STATUS_ENV: str(first_error)}
        with subprocess.Popen(
            ["srun", *options, sys.executable, *arguments], env=os.environ | variables
        ) as agents:
            try:
                status = agents.wait()
            except Interrupted:
                agents.terminate()  # srun passes it on
                raise
        if status:
            raise SystemExit(int(first_error.read_text()) if first_error.exists() else status)


def _record_error(status: int) -> None:
    """Keep the status of an error: processes of other nodes then lose the connection and end with
    EXIT_RETRY, which srun would return as the highest.
    """
    path = os.environ.get(ERROR_STATUS_ENV)
    if path and status != EXIT_RETRY:
        with suppress(FileExistsError), Path(path).open("x") as file:
            file.write(str(status))
