"""`python -m tests.cluster.ray start | stop`: a Ray of two nodes on this machine."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

RAY = Path(sys.executable).with_name("ray")
CORES = max(1, (os.cpu_count() or 1) // 2)  # of each node
START = (
    "start",
    f"--num-cpus={CORES}",
    "--num-gpus=0",
    "--disable-usage-stats",
    "--log-color=false",
)
PORT = 6390  # not Ray's own, which a cluster of the user's may have


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.ray", description=__doc__)
    parser.add_argument("action", choices=["start", "stop"])
    if parser.parse_args().action == "stop":
        return subprocess.call([RAY, "stop"])
    if not RAY.exists():
        print("error: found no ray, expected the extra: `make extras`", file=sys.stderr)
        return 2
    for arguments in (
        ("--head", f"--port={PORT}", "--include-dashboard=false"),
        (f"--address=127.0.0.1:{PORT}",),
    ):
        command = [RAY, *START, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(done.stdout + done.stderr, file=sys.stderr)
            return 2
    print(f"two nodes at 127.0.0.1:{PORT}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
