"""Training runs that are killed at random: `make soak`, or `python -m tests.stress --minutes 5`.

Every run must end with the same bits as an uninterrupted one, and leave no process. In between,
complete runs in this process must not grow its memory or open files.
"""

import argparse
import os
import random
import signal
import subprocess
import tempfile
import time
import warnings
from hashlib import sha256
from pathlib import Path

from densecl.runtime.signals import SIGNAL_HANDLER
from tests.training.training_project import ENVIRONMENT, STEPS, prepare

MODES = ("dense", "global", "none")
EPOCHS = 40  # several seconds of steps
EARLY = 0.2  # share of kills at any moment; the others within 2 s of a checkpoint
GROWTH = 1.10  # of resident memory, over the first runs
WARM = 3  # runs in this process before memory is compared


def finished(mode: str) -> dict[str, str]:
    """Digests of the files of a training run, and of its history."""
    digests = {
        p.name: sha256(p.read_bytes()).hexdigest()
        for p in sorted(Path(f"models/{mode}/seed-0").iterdir())
    }
    history = Path(f"reports/training/{mode}-0/history.csv").read_bytes()
    return digests | {"history": sha256(history).hexdigest()}


def newest() -> float:
    """Time of the last checkpoint; 0 without one."""
    try:
        return max(
            (path.stat().st_mtime for path in Path("checkpoints").glob("*/step-*.pt")), default=0.0
        )
    except FileNotFoundError:  # just replaced by a newer one
        return newest()


def attempt(mode: str, number: int = 0, starting: float = 0.0, training: float = 0.0) -> int:
    """Exit status of a run that gets signal `number` after seconds of `starting` or `training`."""
    before = newest()
    with Path("stderr.log").open("ab") as stderr:
        process = subprocess.Popen(
            [*STEPS, "train", mode, "0"], env=ENVIRONMENT | {"DENSECL_WORKERS": "2"}, stderr=stderr
        )
        while training and newest() == before and process.poll() is None:
            time.sleep(0.01)
        try:
            return process.wait(starting or training or None)
        except subprocess.TimeoutExpired:
            process.send_signal(number)
            return process.wait(10)  # within 10 s of any signal


def others() -> list[str]:
    """Command lines of other processes running in this folder."""
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        try:
            if each.joinpath("cwd").resolve() == Path.cwd() and int(each.name) != os.getpid():
                found.append(each.joinpath("cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return [line for line in found if line]


def killed_until_done(mode: str, draw: random.Random) -> int:
    """Number of times a run was killed before it finished."""
    kills = 0
    while True:
        number = draw.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
        moment = (
            {"starting": draw.uniform(0.1, 8)}
            if draw.random() < EARLY
            else {"training": draw.uniform(0.01, 2)}
        )
        status = attempt(mode, number, **moment)
        if status == 0:
            return kills
        assert status in {-signal.SIGKILL, -signal.SIGTERM, 75}, Path("stderr.log").read_text(
            encoding="utf-8"
        )
        kills += 1
        time.sleep(0.5)
        assert not others(), others()


def in_this_process(mode: str) -> tuple[int, int]:
    """Resident bytes and open files after a complete run in this process."""
    from steps.train import main

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main(mode, 0)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), len(list(Path("/proc/self/fd").iterdir()))


def main() -> None:
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--minutes", type=float, default=30)
    flags.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    flags.add_argument("--kills", type=int, default=0, help="continue until this many kills")
    flags.add_argument("--modes", nargs="+", default=MODES, choices=MODES)
    given = flags.parse_args()
    draw, end = random.Random(given.seed), time.monotonic() + 60 * given.minutes
    os.environ |= {
        name: value for name, value in ENVIRONMENT.items() if name.startswith("MLFLOW")
    } | {"DENSECL_WORKERS": "0"}
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        prepare(Path(place), epochs=EPOCHS, checkpoint_minutes=0.005)
        expected, seconds = {}, {}
        for mode in given.modes:
            begun = time.monotonic()
            assert attempt(mode) == 0, Path("stderr.log").read_text(encoding="utf-8")
            expected[mode], seconds[mode] = finished(mode), time.monotonic() - begun
        print(
            f"uninterrupted: {', '.join(f'{mode} {took:.1f} s' for mode, took in seconds.items())}",
            flush=True,
        )
        trainings, kills, seen = 0, 0, []
        while time.monotonic() < end or kills < given.kills:
            mode = given.modes[trainings % len(given.modes)]
            kills += killed_until_done(mode, draw)
            trainings += 1
            assert finished(mode) == expected[mode], (
                f"{mode} ended in other bits after {kills} kills in all"
            )
            assert not list(Path().rglob("*.partial")), "a half-written file is left"
            assert not any(Path("checkpoints").iterdir()), "a checkpoint is left"
            with SIGNAL_HANDLER.defer_signals():
                seen.append(in_this_process(mode))
            print(
                f"{trainings} runs, {kills} kills, {seen[-1][0] / 2**20:.0f} MiB, {seen[-1][1]} files open",
                flush=True,
            )
        os.chdir("/")
    if len(seen) > WARM:
        memory, files = max(m for m, _ in seen[WARM:]), max(f for _, f in seen[WARM:])
        assert memory <= GROWTH * max(m for m, _ in seen[:WARM]), (
            f"memory grew to {memory / 2**20:.0f} MiB"
        )
        assert files <= max(f for _, f in seen[:WARM]), f"open files grew to {files}"
    print(f"done: {trainings} runs ended in equal bits after {kills} kills")


if __name__ == "__main__":
    main()
