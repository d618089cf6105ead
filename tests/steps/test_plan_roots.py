"""`plan` reports every root that is wrong, one line each, and creates nothing for them."""

from pathlib import Path

import pytest
import yaml

from densecl import paths
from densecl.config.params import Params, ParamsError, load_params
from densecl.errors import DenseclError
from steps.plan import check_roots
from tests.conftest import draw_set

ROOT = Path(__file__).parents[2]


def load(datasets: dict[str, dict[str, str]], require: str = "all") -> Params:
    values = yaml.safe_load((ROOT / "tests/small.yaml").read_text())
    values["datasets"] |= datasets
    values["render"] = {k: v for k, v in values["render"].items() if k not in datasets}
    values["evaluate"]["require"] = require
    Path("params.yaml").write_text(yaml.safe_dump(values))
    return load_params(Path("params.yaml"))


@pytest.fixture(autouse=True)
def _in_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_all_wrong_roots_are_listed_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    draw_set(Path("good"), 2)
    params = load(
        {
            "imagenet": {"root": "no-val", "tracked_by": "no-val"},
            "imagenet-r": {"root": "no-r", "tracked_by": "no-r"},
            "imagenet-a": {"root": "good", "tracked_by": "no-version.txt"},
        }
    )
    with pytest.raises(DenseclError) as error:
        check_roots(params)
    assert sorted(line.split(";")[0] for line in str(error.value).splitlines()) == [
        "datasets.imagenet-a.tracked_by: no-version.txt: no such file or folder",
        "datasets.imagenet-r.root: no-r: no such folder or archive",
        "datasets.imagenet.root: no-val: no such folder or archive",
    ]
    assert "set it to the root, good" in str(error.value)
    assert not Path("no-val").exists()
    assert "imagenet-a: 6 images of 3 classes in good; skipped none" in capsys.readouterr().out


UNEXPANDED = ["~/val", "~other/val", "./~/val", "$DATA/val", "data/${HOME}/val", "%DATA%/val"]


@pytest.mark.parametrize("place", UNEXPANDED)
@pytest.mark.parametrize("key", ["root", "tracked_by"])
@pytest.mark.parametrize("require", ["all", "present"])
def test_what_only_a_shell_expands_is_refused_and_creates_nothing(
    place: str, key: str, require: str
) -> None:
    entry = {"root": "val", "tracked_by": "val"} | {key: place}
    with pytest.raises(ParamsError) as error:
        load({"imagenet": entry}, require)
    (line,) = str(error.value).splitlines()
    assert f"datasets.imagenet.{key}: found '{place}', expected a path without ~" in line
    assert not paths.PLANS.exists()
    assert {path.name for path in Path().iterdir()} == {"params.yaml"}


def test_all_paths_that_a_shell_expands_are_listed_and_others_are_left() -> None:
    sets = {name: {"root": "~/a", "tracked_by": "b~/~c/%20"} for name in ("imagenet", "sketch")}
    with pytest.raises(ParamsError) as error:
        load(sets, "all")
    assert str(error.value).count("found '~/a'") == 2
    assert "%20" not in str(error.value)


def test_a_missing_tracked_by_is_one_line_that_proposes_the_root() -> None:
    with pytest.raises(ParamsError) as error:
        load({"imagenet": {"root": "/data/val"}})
    (line,) = str(error.value).splitlines()
    assert "datasets.imagenet.tracked_by: missing; expected the path" in line
    assert "add tracked_by: /data/val" in line
