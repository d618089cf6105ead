"""docs/params.md: it is what the schema says now, and it says something of every key."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from densecl.config import reference
from densecl.config.params import MODES, Params, ParamsError, parse_params
from densecl.config.probe_params import ProbesParams
from densecl.config.yaml_loader import load_yaml
from steps.params import list_flags
from train import build_params, build_parser

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "params.md").read_text(encoding="utf-8")


def at(values: dict, path: str) -> object:
    for part in path.split("."):
        values = values[part]
    return values


def test_the_page_is_up_to_date():
    assert reference.render_params_page(list_flags()) == PAGE, (
        "docs/params.md is stale: python -m steps params"
    )


def test_every_key_of_the_shipped_file_is_on_the_page():
    """Followed through the file itself, not through the schema."""

    def leaves(values: dict, prefix: str = ""):
        for name, value in values.items():
            by_set = prefix in ("render.", "datasets.", "transfer.")
            path = f"{prefix}{'<set>' if by_set else name}"
            by_name = (
                "network.model_args",
                "contrast.dense",
                "contrast.global",
                "evaluate.preprocess",
                "evaluate.protocol",
                "evaluate.classes",
                "evaluate.probes.knn.sets",
                "evaluate.probes.linear.sets",
            )
            yield from (
                leaves(value, f"{path}.")
                if isinstance(value, dict) and path not in by_name
                else [path]
            )

    found = set(leaves(yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))))
    assert len(found) > 40
    assert {path for path in found if f"| `{path}` |" not in PAGE} == set()


def test_every_key_has_a_description():
    assert [key.name for key in reference.list_entries() if not key.description] == []


def test_defaults_on_the_page_are_those_a_file_gets():
    """Each key that is written nowhere below what must be written takes the value on the page."""
    least = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    least = {k: v for k, v in least.items() if k in ("modes", "seeds", "datasets")} | {"render": {}}
    least |= {"network": {"model_name": "x"}, "train": {}, "evaluate": {"datasets": ["imagenet"]}}
    got = parse_params(least, "least").model_dump(mode="json", by_alias=True)
    # These are in no dump where they are empty, so that plans without them stay what they were.
    assert "variants" not in got
    assert "tuning" not in got
    assert "order" not in got["data"]
    got["data"] |= {"order": "images", "block_shards": 16}
    got |= {"tuning": None, "variants": {}, "train": got["train"] | {mode: {} for mode in MODES}}
    # A probe's values count where the probe is measured.
    entry = {"root": "x", "tracked_by": "x", "layout": "voc"}  # which has masks
    required = {"segmentation": {"fit": "x", "test": "y"}, "localisation": {"test": "x"}}
    probes = {name: required.get(name, {}) for name in ProbesParams.model_fields}
    evaluate = least["evaluate"] | {"probes": probes}
    measured = parse_params(
        least | {"transfer": {"x": entry, "y": entry}, "evaluate": evaluate}, "measured"
    )
    got["evaluate"]["probes"] = {
        name: getattr(measured.evaluate.probes, name).model_dump(mode="json") for name in probes
    }
    params = Params.model_validate(least)
    got["train"] |= {
        name: getattr(params.train, name)
        for name in (
            *("processes", "checkpoint_minutes", "parallel", "checkpoint_activations"),
            *("random_erasing", "random_erasing_count"),
        )
    }
    got["evaluate"]["cell_cache"] = params.evaluate.cell_cache
    checked = 0
    for key in reference.list_entries():
        if "<set>" in key.name or key.default == "**required**":
            continue
        if key.name.removeprefix("evaluate.probes.") in probes:
            assert key.default == "`null`"
            continue
        shown = load_yaml(key.default.split("`")[1])
        wanted = at(got, key.name)
        numbers = wanted if isinstance(wanted, list) else [wanted]
        rounded = any(isinstance(number, float) for number in numbers)
        assert shown == (pytest.approx(wanted, rel=1e-3) if rounded else wanted), key.name
        checked += 1
    assert checked > 45


@pytest.mark.parametrize(
    ("key", "allowed", "refused"),
    [
        ("contrast.temperature", "number from 0.01 to 1", 0.001),
        ("train.drop_path", "number ≥ 0, < 1", 1.0),
        ("train.grad_clip", "number > 0 or `null`", 0.0),
        ("train.epochs", "whole number ≥ 1", 2.5),
        ("contrast.negatives", "`all`, `other_class`", "same"),
    ],
)
def test_bounds_on_the_page_hold(key: str, allowed: str, refused: object):
    assert next(k for k in reference.list_entries() if k.name == key).allowed == allowed
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    section, name = key.split(".")
    values[section][name] = refused
    with pytest.raises(ParamsError, match=key):
        parse_params(values, "params.yaml")


def larger(before: float | None) -> str:
    """Half as much where it must stay small, else more."""
    return str(1 if before is None else before / 2 if isinstance(before, float) else before + 4)


def test_each_flag_sets_the_key_beside_it():
    other = {
        "model_args": '{"img_size": 64}',
        "checkpoint": "a.safetensors",
        "cl_mode": "global",
        "model_name": "y",
        "sampling_strategy": "diverse",
        "correspondence_features": "backbone",
        "correspondence_filter": "mutual",
        "memory_unit": "image",
        "negatives": "other_class",
        "key_encoder": "momentum",
        "parallel": "fsdp",
    }
    base = build_parser().parse_args(["--params", str(ROOT / "params.yaml")])
    plain = build_params(vars(base))
    for key, flag in list_flags().items():
        dest = flag.lstrip("-").replace("-", "_")
        before = getattr(base, dest)
        words = (
            [flag] if before is False else [flag, other[dest] if dest in other else larger(before)]
        )
        changed = build_params(
            vars(build_parser().parse_args(["--params", str(ROOT / "params.yaml"), *words]))
        )
        section, _, name = key.rpartition(".")
        places = [(getattr(p, section) if section else p) for p in (plain, changed)]
        assert getattr(places[0], name) != getattr(places[1], name), (flag, key)


def test_the_page_is_written_without_torch(tmp_path: Path):
    script = "import sys, steps.params as p; p.main(); sys.exit('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, check=False
    )
    assert done.returncode == 0
    assert (tmp_path / "docs" / "params.md").read_text(encoding="utf-8") == PAGE


def test_paths_on_the_command_line_are_text():
    for path in ("runs/w #2.safetensors", "@x.safetensors", "a: b.safetensors"):
        assert build_parser().parse_args(["--checkpoint", path]).checkpoint == path
