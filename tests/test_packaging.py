"""What `pip install .` gives: `densecl` alone, with its data, importable with the light
dependencies.
"""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import densecl

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
# Import names that differ from the name of the distribution.
IMPORT_NAMES = {
    "huggingface-hub": "huggingface_hub",
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "pyyaml": "yaml",
}


def parse_names(requirements: list[str]) -> list[str]:
    return [re.match(r"[\w.-]+", line)[0] for line in requirements]


def list_light_imports() -> set[str]:
    names = parse_names(PYPROJECT["project"]["dependencies"])
    return {IMPORT_NAMES.get(name, name).split(".")[0] for name in names}


def iter_module_imports(node: ast.AST) -> Iterator[str]:
    """Top packages that are imported when the module is: not inside functions, not for types."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name.split(".")[0] for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.module:
            yield child.module.split(".")[0]
        else:
            yield from iter_module_imports(child)


def test_every_module_imports_only_light_dependencies():
    allowed = list_light_imports() | sys.stdlib_module_names | {"densecl"}
    found = {
        (str(path.relative_to(ROOT)), name)
        for path in (ROOT / "densecl").rglob("*.py")
        for name in iter_module_imports(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert len(found) > 200
    assert {entry for entry in found if entry[1] not in allowed} == set()


# Each package anew, as the first import of its user; torch and timm are imported once.
EACH_PACKAGE_FIRST = """
import importlib, sys
for package in sys.argv[1:]:
    for name in [name for name in sys.modules if name.split(".")[0] == "densecl"]:
        del sys.modules[name]
    module = importlib.import_module(f"densecl.{package}")
    print(package, all(hasattr(module, name) for name in module.__all__))
"""


@pytest.mark.slow
def test_the_public_names_exist():
    packages = ("contrast", "network", "training", "evaluation", "analysis")
    command = [sys.executable, "-c", EACH_PACKAGE_FIRST, *packages]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.stdout.splitlines() == [f"{package} True" for package in packages], done.stderr


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_its_data(tmp_path):
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.startswith(f"densecl-{densecl.__version__}-")
    names = zipfile.ZipFile(wheel).namelist()
    tracked = subprocess.run(
        ["git", "ls-files", "densecl"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    assert set(tracked) <= set(names)
    assert {name.split("/")[0] for name in names} == {
        "densecl",
        f"densecl-{densecl.__version__}.dist-info",
    }
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--target",
            tmp_path / "site",
            wheel,
        ],
        check=True,
    )
    code = (
        "import densecl, densecl.contrast as c; print(densecl.__file__, c.info_nce, c.MemoryQueue)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(str(tmp_path / "site"))
    done = subprocess.run(
        [sys.executable, tmp_path / "site/bin/densecl", "predict", "--help"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--attention" in done.stdout


def test_all_locks_pin_the_same_versions():
    names = ("requirements.lock", "requirements-dev.lock", "requirements-extras.lock")
    run, development, extras = map(_read_pins, names)
    assert run
    for other in (development, extras):
        assert {name: other.get(name) for name in run} == run
    both = development.keys() & extras.keys()
    assert {name: development[name] for name in both} == {name: extras[name] for name in both}
    assert {"ray", "submitit", "dvc-s3"} <= extras.keys()


def test_what_only_development_needs_is_not_installed_for_a_run():
    run, development = (_read_pins(name) for name in ("requirements.lock", "requirements-dev.lock"))
    extra = set(parse_names(PYPROJECT["dependency-groups"]["dev"]))
    assert {"hypothesis", "moto", "playwright", "ruff"} <= extra <= set(development)
    assert extra & set(run) == set()


def _read_pins(name: str) -> dict[str, set[str]]:
    """Versions per package; several where they differ per version of Python."""
    pins: dict[str, set[str]] = {}
    for package, version in re.findall(r"^([a-z0-9.-]+)==(\S+)", (ROOT / name).read_text(), re.M):
        pins.setdefault(package, set()).add(version)
    return pins
