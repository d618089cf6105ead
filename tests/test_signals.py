"""How a command ends when it is asked to, whatever it is doing."""

import signal
import subprocess
import sys
import time

import pytest

from tests.training.training_project import ENVIRONMENT

BLOCKED = """
import sys, time
from densecl.runtime import cli, signals
signals.STOP_TIMEOUT = 1.0
cli.setup_process(stage=False)
def wait():
    with signals.SIGNAL_HANDLER.defer_signals():
        print("ready", flush=True)
        {work}
    signals.SIGNAL_HANDLER.raise_if_signalled()
sys.exit(cli.run_command(wait))
"""


def ended_by(number: int, work: str) -> tuple[int, float, str]:
    """Exit status, seconds from the signal on, and stderr of a command at `work`."""
    process = subprocess.Popen(
        [sys.executable, "-c", BLOCKED.format(work=work)],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        process.stdout.readline()
        begun = time.monotonic()
        process.send_signal(number)
        said = process.stderr.read()
        return process.wait(), time.monotonic() - begun, said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_is_finished_in_time_is_finished(number):
    status, _, said = ended_by(number, "time.sleep(0.3); print('finished', file=sys.stderr)")
    assert status == 75
    assert said.splitlines() == [
        "finished",
        f"error: {signal.Signals(number).name}: stopped; nothing is lost, rerun the same command to resume",
    ]


@pytest.mark.parametrize(
    "work",
    [
        "time.sleep(60); time.sleep(60)",
        "import ctypes; [ctypes.CDLL(None).sleep(60) for _ in range(9)]",
    ],
    ids=["python", "a library that no Python handler interrupts"],
)
def test_what_hangs_is_broken_off(work):
    status, seconds, said = ended_by(signal.SIGTERM, work)
    assert status == 75
    assert seconds < 5
    assert said.startswith("error: stopped at once")


def test_a_forked_child_leaves_the_group_and_takes_no_signal_for_its_parent():
    work = (
        "import os, signal\n"
        "        child = os.fork()\n"
        "        if not child:\n            time.sleep(60)\n"
        "        time.sleep(0.2); assert os.getpgid(child) == child; os.kill(child, signal.SIGTERM); os.waitpid(child, 0)\n"
        "        time.sleep(1.5); print('alive', file=sys.stderr); os.kill(os.getpid(), signal.SIGTERM)"
    )
    process = subprocess.run(
        [sys.executable, "-c", BLOCKED.format(work=work)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 75
    assert process.stderr.startswith(
        "alive\n"
    )  # what the child was sent did not start the parent's clock


@pytest.mark.skipif(sys.platform != "linux", reason="reads what the kernel was asked for")
def test_nohup_outlives_its_parent():
    code = (
        "import ctypes; from densecl.runtime import cli; cli.setup_process(stage=True)\n"
        "number = ctypes.c_int(); ctypes.CDLL(None).prctl(2, ctypes.byref(number))\n"
        "print(number.value)"
    )
    numbers = [
        int(
            subprocess.run(
                [sys.executable, "-c", code],
                env=ENVIRONMENT,
                capture_output=True,
                text=True,
                check=True,
                preexec_fn=before,
            ).stdout
        )
        for before in (None, lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    ]
    assert numbers == [signal.SIGTERM, 0]  # sent by the kernel when the parent dies; 0: nothing
