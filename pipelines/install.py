"""Files that make a machine retrain by the clock: a systemd unit, a crontab line or a GitHub
Actions workflow.

They are written to a folder and nothing is installed: what to do with them is printed.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from datetime import tzinfo
from pathlib import Path
from typing import Literal

from densecl import paths
from densecl.artifacts import write_text
from densecl.errors import DenseclError
from pipelines.schedule.cron import build_trigger, parse_timezone

Kind = Literal["systemd", "cron", "github"]

# `schedule run` as a service, not a timer: missed ticks, overlap and the record are then the same
# everywhere, and there is
# no second language for the time.
SERVICE = """\
[Unit]
Description=densecl retraining ({when})

[Service]
Type=exec
WorkingDirectory={root}
Environment={path}
ExecStart={command}
# SIGTERM to the scheduler alone: it stops the retraining at a checkpoint; within 90 s all are gone.
KillMode=mixed
TimeoutStopSec=90
Restart=on-failure
RestartSec=30
# A mistake in params or flags does not go away by itself.
RestartPreventExitStatus=2

[Install]
WantedBy=default.target
"""

CRONTAB = """\
# densecl retraining. Append this to `crontab -e`, at its end: CRON_TZ holds for all lines after it.
# cronie (Fedora, RHEL, Arch) reads CRON_TZ. The cron of Debian and Ubuntu does not: there the line means the machine's
# zone, {local} where this was written. A tick that the machine slept through is not caught up;
# `schedule run` does that.
{zone}{cron} {command}
"""

WORKFLOW = """\
# Retrains on a runner of yours: registry, DVC's cache and ZenML's store stay in its working copy, so keep to one runner.
name: retraining
on:
  schedule:
    - cron: {cron}
      timezone: {zone}
  workflow_dispatch: {{}}
permissions:
  contents: read # `retraining.git: tag` or `commit` makes tags here; to push them, grant write and add a step
concurrency:
  group: retraining
  cancel-in-progress: false
defaults:
  run:
    working-directory: {folder}
jobs:
  retraining:
    runs-on: [self-hosted]
    timeout-minutes: 4320
    # env: {{AWS_ACCESS_KEY_ID: "${{{{ secrets.AWS_ACCESS_KEY_ID }}}}", ...}} where the DVC remote asks for it
    steps:
      - uses: actions/checkout@de0fac2e4500dabe0009e67214ff5f5447ce83dd # v6.0.2
        with:
          clean: false # what git ignores is the state
          persist-credentials: false
      - run: make .venv/ready
      - run: echo "$PWD/.venv/bin" >> "$GITHUB_PATH"
      - run: dvc pull --force --run-cache --allow-missing
      - run: python -m pipelines retraining
      - run: dvc push --run-cache
      - uses: actions/upload-artifact@043fb46d1a93c77aae656e7c1c64a875d1fc6a0a # v7.0.1
        if: always()
        with:
          name: reports
          path: {reports}
          if-no-files-found: warn
"""


def install(
    kind: Kind, cron: str, timezone: str | None, output: Path = paths.DEPLOY_FOLDER
) -> None:
    """Write the file of that kind into `output` and print what to do next."""
    where = parse_timezone(timezone)
    build_trigger(cron, where)
    if kind != "systemd" and len(cron.split()) != 5:
        raise DenseclError(f"--cron: found {cron!r}, expected five fields: {kind} knows no seconds")
    root, python = Path.cwd(), Path(sys.executable)
    if any(ord(letter) < 32 for letter in f"{root}{python}"):
        raise DenseclError(
            f"{str(root)!r}: a path with control characters cannot stand in such a file; move the "
            f"project"
        )
    name, text, then = {"systemd": _service, "cron": _crontab, "github": _workflow}[kind](
        root, python, cron, where
    )
    path = output / name
    write_text(path, text)
    print(
        f"wrote {path}. Nothing is installed. Next:\n"
        + "\n".join(f"  {line.format(path=shlex.quote(str(path)))}" for line in then)
    )


def _service(root: Path, python: Path, cron: str, where: tzinfo) -> tuple[str, str, list[str]]:
    # Through env: systemd takes neither quotes nor $$ in the path of a program.
    words = [
        "/usr/bin/env",
        str(python),
        "-m",
        "pipelines",
        "schedule",
        "run",
        "--cron",
        cron,
        *_named(where),
    ]
    path = f"PATH={python.parent}:/usr/local/bin:/usr/bin:/bin"  # dvc.yaml's commands say `python`
    text = SERVICE.format(
        when=_literal(f"{cron} {where}"),
        root=_literal(str(root)),
        path=_quoted(path),
        command=" ".join(_quoted(word).replace("$", "$$") for word in words),
    )
    unit = "densecl-retraining.service"
    return (
        unit,
        text,
        [
            "mkdir -p ~/.config/systemd/user && cp {path} ~/.config/systemd/user/",
            "systemctl --user daemon-reload",
            f"systemctl --user enable --now {unit}",
            "loginctl enable-linger    # it then runs also while you are logged out",
            f"journalctl --user -u {unit} -f    # what it says; its ticks: {paths.SCHEDULE_LOG}",
        ],
    )


def _crontab(root: Path, python: Path, cron: str, where: tzinfo) -> tuple[str, str, list[str]]:
    log = paths.RETRAINING_LOCK.with_suffix(".log")
    command = (
        f"cd {shlex.quote(str(root))} && mkdir -p {log.parent} && "
        f'PATH={shlex.quote(str(python.parent))}:"$PATH" {shlex.quote(str(python))} -m pipelines '
        f"retraining >> {log} 2>&1"
    ).replace("%", r"\%")  # a bare % ends the command for cron
    named = _named(where)
    text = CRONTAB.format(
        local=parse_timezone(None),
        zone=f"CRON_TZ={named[1]}\n" if named else "",
        cron=cron,
        command=command,
    )
    return (
        "retraining.crontab",
        text,
        [
            "(crontab -l; cat {path}) | crontab -    # appends it",
            f"tail -f {log}    # what it says; how each ended: {paths.RETRAINING_LOG}",
        ],
    )


def _workflow(root: Path, _: Path, cron: str, where: tzinfo) -> tuple[str, str, list[str]]:
    prefix = _prefix(root)
    text = WORKFLOW.format(
        cron=json.dumps(cron),
        zone=json.dumps((_named(where) or ["", "UTC"])[1]),
        folder=json.dumps(prefix or "."),
        reports=json.dumps(f"{prefix}reports/"),
    )
    to = ".github/workflows/retraining.yml"
    return (
        "retraining.yml",
        text,
        [
            f"mkdir -p .github/workflows && cp {{path}} {to}    # at the root of the repository, "
            f"on its default branch",
            f"git add {to} && git commit && git push",
            "give the repository a self-hosted runner that keeps its working copy (Settings, "
            "Actions, Runners)",
        ],
    )


def _prefix(root: Path) -> str:
    """The project's folder within its repository, with a slash behind it; "" at the root or outside
    git.
    """
    asked = subprocess.run(
        ["git", "rev-parse", "--show-prefix"], cwd=root, capture_output=True, text=True, check=False
    )
    return asked.stdout.strip()


def _named(where: tzinfo) -> list[str]:
    """The flag that names the zone; a machine's own may have no name."""
    key = getattr(where, "key", None)
    return ["--timezone", key] if key and key != "local" else []


def _literal(text: str) -> str:
    """A value of a systemd unit; it takes % as the start of a specifier."""
    return text.replace("%", "%%")


def _quoted(word: str) -> str:
    """One word of a systemd command line or list."""
    if re.fullmatch(r"[\w./:=-]+", word):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return _literal(f'"{escaped}"')
