"""`python -m pipelines.runtime.process_group COMMAND...`: run a command in the group that this
process leads, and kill the group on SIGTERM or when the parent dies, be it by kill -9.

Servers start processes of their own, which the kernel does not tell of the death of a grandparent.
"""

import os
import signal
import subprocess
import sys

from densecl.runtime.signals import exit_with_parent


def main() -> int:
    """The exit status of the command."""
    signal.signal(signal.SIGTERM, lambda *_: os.killpg(0, signal.SIGKILL))
    exit_with_parent()
    return subprocess.call(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
