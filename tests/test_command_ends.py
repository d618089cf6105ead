"""How commands end: one line per kind of error, and the right status; a bug keeps its traceback."""

import errno
import getpass
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import load_file

from densecl import paths
from densecl.artifacts import ReportPlan, write_text
from densecl.errors import DenseclError
from densecl.runtime import cli
from steps.__main__ import main
from tests.training.training_project import ENVIRONMENT

LONG = "x" * 5000


def raise_error(error):
    raise error


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (DenseclError("params: found 1"), 2, "error: params: found 1"),
        (OSError(errno.ENAMETOOLONG, "File name too long", LONG), 2, "x...: File name too long"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "a/b"), 2, "error: a/b: Not a dir"),
        (OSError(errno.ENOSPC, "No space left on device", "a"), 75, "error: a: No space left"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 75, "error: stdout: closed by its reader"),
        (FileNotFoundError("a.parquet"), 2, "error: a.parquet; expected a file"),
        (UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates"), 2, "names and texts in UTF-8"),
        (ValueError("embedded null byte"), 2, "error: found a NUL in a path"),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
            75,
            "error: a process that loads images was killed or failed (DataLoader worker (pid 7) is",
        ),
        (
            RuntimeError(
                "Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback:\n"
                "unable to write to file </torch_1_2_3>: No space left on device (28)"
            ),
            75,
            "more /dev/shm, or set DENSECL_WORKERS=0",
        ),
        (
            RuntimeError(
                "Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback:\n"
                "RuntimeError: unable to allocate shared memory(shm) for file </torch_1>: No space"
            ),
            75,
            "or failed (RuntimeError: unable to allocate shared memory(shm) for file </torch_1>",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_end_by_their_kind(error, status, text, capsys):
    assert cli.run_command(lambda: raise_error(error)) == status
    said = capsys.readouterr().err
    assert text in said
    assert said.count("\n") == 1
    assert len(said) < 500


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        KeyError("x"),
        OSError("x"),
        RuntimeError("Caught RuntimeError in DataLoader worker process 0.\nshapes differ"),
    ],
)
def test_a_bug_keeps_its_traceback(error):
    with pytest.raises(type(error)):
        cli.run_command(lambda: raise_error(error))


def read_parquet(path: Path) -> None:
    pd.read_parquet(path, columns=["label"])


def read_tensors(path: Path) -> None:
    load_file(path)


def read_object(path: Path) -> None:
    json.loads(path.read_text())


def read_table(path: Path) -> None:
    pd.read_csv(path)


@pytest.mark.parametrize(
    ("read", "content"),
    [
        *itertools.product(
            (read_parquet, read_tensors, read_object), (b"", b"PAR1", b"\xff\xfe", b"{", None)
        ),
        *itertools.product((read_table,), (b"", b"\xff\xfe", b"a\n1\n1,2\n", None)),
    ],
)
def test_a_damaged_file_is_named_with_the_reason(read, content, tmp_path, capsys):
    """The reader does not name the file; the function that called it holds it."""
    path = tmp_path / "damaged"
    if content is None:
        pd.DataFrame({"label": range(9)}).to_parquet(path)
        content = path.read_bytes()[:-20] + b"\x55" * 12 + path.read_bytes()[-8:]
    path.write_bytes(content)
    assert cli.run_command(lambda: read(path)) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {path}: cannot be read (")
    assert said.count("\n") == 1
    assert len(said) < 600


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (["train", "none", "5"], "train none 5: found no such model in the plan, expected a mode"),
        (["train", "sparse", "0"], "expected a mode of dense, none and a seed of 0, 1"),
        (["evaluate", "dense", "-1"], "evaluate dense -1: found no such model in the plan"),
        (["train", "\udcff", "0"], "found no such model in the plan"),
        (["train", "dense", "0"], "data/plan/execution.json: no such file"),
        (["prepare", "sketch"], "data/plan/sketch.json: no such file; the stage that writes it"),
        (["prepare", "other"], "prepare other: found no such entry of datasets in the plan, expec"),
        (
            ["scan", "other"],
            "expected imagenet-train, sketch; name it in params.yaml, then run `py",
        ),
        (["render", "a\nb"], "found no such entry of render in the plan, expected no name at all"),
        (["prepare-transfer", "masks"], "found no such entry of transfer in the plan"),
        (
            ["evaluate-model", "beit"],
            "found no such entry of evaluate.models in the plan, expected",
        ),
        (["evaluate-model", "deit"], "data/models/deit/config.json: No such file or directory"),
        (["prepare", LONG], "found no such entry of datasets in the plan"),
        (["compare", LONG, "HEAD"], "File name too long"),
    ],
)
def test_a_stage_by_hand_is_one_line(command, text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    values = {"protocols": {}, "rendered": (), "datasets": (), "values": None}
    values["params"] = {
        "datasets": {"imagenet-train": {}, "sketch": {}},
        "evaluate": {"models": {"deit": "deit.safetensors"}},
    }
    plan = ReportPlan.model_construct(modes=("dense", "none"), seeds=(0, 1), **values)
    write_text(paths.plan_file("report"), plan.model_dump_json(by_alias=True))
    monkeypatch.setattr("steps.__main__.read_json", lambda *_: plan)
    assert main(command) == 2
    said = capsys.readouterr().err
    assert text in said
    assert said.count("\n") == 1


def test_a_user_without_an_entry_has_a_name(monkeypatch, capsys):
    """`docker run --user 12345`, where MLflow and the registry ask who runs."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("HOME", "")  # as set: it is restored
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    assert cli.run_command(lambda: print(getpass.getuser(), Path.home().name)) == 0
    assert capsys.readouterr().out == f"uid-{os.getuid()} home\n"


@pytest.mark.parametrize(
    ("redirection", "status"), [(">&-", 2), (">&- 2>&-", 2), ("<&- >/dev/full", 2)]
)
def test_closed_standard_files_change_no_status(redirection, status, tmp_path):
    """Without params.yaml, the command ends with 2."""
    command = f"'{sys.executable}' -m steps plan {redirection}"
    environment = ENVIRONMENT | {"PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(
        ["/bin/sh", "-c", command], cwd=tmp_path, env=environment, capture_output=True, check=False
    )
    assert done.returncode == status
    assert done.stderr.count(b"\n") == ("2>" not in redirection)


@pytest.mark.parametrize(
    ("redirection", "status"), [(">&-", 0), (">/dev/full", 75), ("| true; exit $(cat rc)", 75)]
)
def test_output_that_nobody_takes_is_one_line(redirection, status, tmp_path):
    script = tmp_path / "command.py"
    script.write_text(
        "from pathlib import Path\nfrom densecl.runtime import cli\n"
        "def command():\n"
        "    file = Path('written').open('w')\n"
        "    for _ in range(9999): print('a line of output')\n"
        "    file.write('result')\n"
        "    file.close()\n"
        "cli.exit_immediately(cli.run_command(command))\n"
    )
    command = f"'{sys.executable}' command.py {redirection}"
    if "|" in redirection:
        command = command.replace(" |", "; echo $? > rc; } |").replace("'", "{ '", 1)
    environment = ENVIRONMENT | {"PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(
        ["/bin/sh", "-c", command], cwd=tmp_path, env=environment, capture_output=True, check=False
    )
    assert done.returncode == status, done.stderr
    assert b"Traceback" not in done.stderr
    assert status == 75 or (tmp_path / "written").read_text() == "result"
