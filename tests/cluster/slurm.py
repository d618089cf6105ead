"""`python -m tests.cluster.slurm start | stop`: a Slurm of two nodes on this machine, as root.

Debian's packages, without systemd: apt-get install slurmctld slurmd slurm-client munge.
"""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

COMMANDS = ("munged", "slurmctld", "slurmd", "squeue", "srun")
DEFAULT = Path("/etc/slurm/slurm.conf")  # where Slurm's commands look
NODES = ("n1", "n2")
CONFIG = """\
ClusterName=densecl
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SwitchType=switch/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
SlurmdTimeout=10
KillWait=5
InactiveLimit=0
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs={cpus} State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs={cpus} State=UNKNOWN
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes=n1,n2 MaxTime=INFINITE State=UP PriorityTier=2 PreemptMode=OFF
"""


def find_obstacle() -> str:
    """Why no Slurm can be started here; "" if one can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "a Slurm for tests needs Linux and root"
    missing = [name for name in COMMANDS if shutil.which(name, path=_build_path()) is None]
    if missing:
        return f"no {', '.join(missing)}: apt-get install slurmctld slurmd slurm-client munge"
    return ""


def _build_path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin"


class SlurmCluster:
    """munged, slurmctld and two slurmd, whose files are in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "slurm.conf"
        self.environment = os.environ | {"SLURM_CONF": str(self.config), "PATH": _build_path()}
        self.daemons: list[subprocess.Popen[bytes]] = []  # those that this process started

    def start(self) -> None:
        """Return once both nodes are idle."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)  # munged and its clients refuse others
        for name in ("state", *(f"spool-{node}" for node in NODES)):
            (self.folder / name).mkdir(exist_ok=True)
        key = self.folder / "munge.key"
        if not key.exists():
            key.write_bytes(os.urandom(128))
            key.chmod(0o400)
        host = socket.gethostname().split(".")[0]
        cpus = max(1, (os.cpu_count() or 1) // len(NODES))
        text = CONFIG.format(folder=self.folder, host=host, ports=_find_ports(3), cpus=cpus)
        self.config.write_text(text, encoding="utf-8")
        files = {
            "key-file": "key",
            "socket": "socket",
            "pid-file": "pid",
            "seed-file": "seed",
            "log-file": "log",
        }
        munge = [f"--{name}={self.folder}/munge.{suffix}" for name, suffix in files.items()]
        self._start("munged", "munged", "--foreground", "--force", *munge)
        self._start("slurmctld", "slurmctld", "-D", "-i")
        for node in NODES:
            self.start_node(node)
        self._wait_until_idle()

    def start_node(self, node: str) -> None:
        """Start the daemon of a node."""
        self._start(f"slurmd-{node}", "slurmd", "-D", "-N", node)

    def kill_node(self, node: str) -> None:
        """Kill the daemon of a node; what runs there lives on, as where only the network failed."""
        self._signal(f"slurmd-{node}", signal.SIGKILL)

    def stop(self) -> None:
        """End all jobs and daemons."""
        if (self.folder / "slurmctld.id").exists():
            with suppress(subprocess.SubprocessError):
                self.run("scancel", "--me")
                time.sleep(1)
        for name in (*(f"slurmd-{node}" for node in NODES), "slurmctld", "munged"):
            self._signal(name, signal.SIGKILL)
        for daemon in self.daemons:
            daemon.wait()

    def run(self, *command: str) -> str:
        """Output of one of Slurm's commands."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=True, timeout=20
        )
        return done.stdout

    def _start(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.out").open("ab") as output:
            process = subprocess.Popen(
                command,
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.daemons.append(process)
        (self.folder / f"{name}.id").write_text(str(process.pid))
        time.sleep(0.5)

    def _signal(self, name: str, number: int) -> None:
        file = self.folder / f"{name}.id"
        if file.exists():
            with suppress(ProcessLookupError):
                os.kill(int(file.read_text()), number)
            file.unlink()

    def _wait_until_idle(self) -> None:
        end = time.monotonic() + 60
        said = ""
        while said.split() != ["idle", "idle"]:
            if time.monotonic() > end:
                raise TimeoutError(f"the nodes are {said!r}; logs are in {self.folder}")
            time.sleep(0.3)
            with suppress(subprocess.SubprocessError):
                said = self.run("sinfo", "--noheader", "--Node", "--partition=main", "--format=%T")


def _find_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.slurm", description=__doc__)
    parser.add_argument("action", choices=["start", "stop"])
    parser.add_argument("--folder", type=Path, default=Path("/tmp/densecl-slurm"))  # noqa: S108
    arguments = parser.parse_args()
    if obstacle := find_obstacle():
        print(f"error: {obstacle}", file=sys.stderr)
        return 2
    cluster = SlurmCluster(arguments.folder)
    cluster.stop()
    if DEFAULT.is_symlink():
        DEFAULT.unlink()
    if arguments.action == "stop":
        return 0
    cluster.start()
    if DEFAULT.exists():
        print(f"export SLURM_CONF={cluster.config}  # {DEFAULT} is another cluster's")
    else:
        DEFAULT.parent.mkdir(parents=True, exist_ok=True)
        DEFAULT.symlink_to(cluster.config)
    print(cluster.run("sinfo", "--Node"), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
