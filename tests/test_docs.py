"""The README: its size, its Python; links and commands of all pages."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from densecl.__main__ import main as densecl_main
from densecl.runtime import cli
from pipelines.__main__ import main as pipelines_main
from steps.__main__ import main as steps_main
from train import build_parser

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
OURS = re.compile(r"(python -m (densecl|steps|pipelines)|densecl|python train\.py|make)( |$)")
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def test_the_readme_fits_on_a_few_screens():
    lines = README.splitlines()
    assert len(lines) <= 150
    assert [line for line in lines if len(line) > 100 and not line.startswith("![")] == []


@pytest.mark.slow
@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_the_readme_s_python_runs(code: str):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "tensor" in done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_to_a_file(page: Path):
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    relative = [link for link in links if not link.startswith(("http", "mailto"))]
    assert [link for link in relative if not (page.parent / link).exists()] == []


def test_the_readme_names_targets_that_the_makefile_has():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"^make ([a-z]+)", README, re.MULTILINE))
    assert named == {"repro", "test", "ui"}
    assert named <= targets


def list_commands() -> Iterator[tuple[str, str]]:
    """Page and command of every line of the pages' shell blocks that starts a program of ours."""
    for page in PAGES:
        for block in re.findall(r"```(?:bash|sh)\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                for command in re.split(r"&&|\|\|?|;", re.sub(r"(^|\s)#.*", "", line)):
                    if OURS.match(command.strip()):
                        yield page.name, " ".join(command.split())


COMMANDS = list(list_commands())


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=[" ".join(pair) for pair in COMMANDS])
def test_the_commands_of_the_pages_are_understood(page, command, monkeypatch):
    """By the parser of their program, or as a target of the Makefile; nothing runs."""
    monkeypatch.setattr(cli, "run_command", lambda _: 0)
    words = shlex.split(
        command.replace("[--", "--").replace("]", "") if "[--" in command else command
    )
    if words[0] == "make":
        rules = re.findall(r"^([a-z -]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert {word for word in words[1:] if "=" not in word} <= set(" ".join(rules).split())
        return
    program, *arguments = [word for word in words if word not in ("python", "-m")]
    parse = {
        "densecl": densecl_main,
        "steps": steps_main,
        "pipelines": pipelines_main,
        "train.py": build_parser().parse_args,
    }
    assert parse[program](arguments) is not None
