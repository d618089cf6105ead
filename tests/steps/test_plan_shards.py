"""What `plan` says of shards in a store, and what it refuses."""

from pathlib import Path

import pytest

from densecl.analysis.results import Comparison
from densecl.config.params import DatasetParams, Params, ParamsError, parse_params
from densecl.config.yaml_loader import load_yaml
from densecl.datasets.storage import cache_room
from densecl.datasets.storage.shard_index import IndexedFile, ShardIndex, write_index
from densecl.errors import RetryLater
from densecl.report.sections.dataset_sections import build_facts_table
from steps import plan
from steps.plan import describe_remote, find_cache_problem
from steps.unit_plans import resolve_train_plan

ROOT = Path(__file__).parents[2]
SIZES = {"a.tar": 400, "b.tar": 300, "c.tar": 200, "d.tar": 100}


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    for name, size in SIZES.items():
        (tmp_path / "there" / name).write_bytes(name.encode() * (size // 5))
    return tmp_path


def build_params(place: Path, **data: object) -> Params:
    values = load_yaml((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values["datasets"]["imagenet-train"] = {
        "root": f"file://{place}/there",
        "tracked_by": "i.json",
        "layout": "webdataset",
    }
    values["data"] = (values.get("data") or {}) | data
    return parse_params(values, "params.yaml")


def test_a_line_says_what_is_there_and_the_index_is_written(place):
    settings = build_params(place).datasets["imagenet-train"]
    line = (
        f"imagenet-train: 4 shards of 0.00 GB in file://{place}/there; prepare lists what they hold"
    )
    assert describe_remote("imagenet-train", settings).splitlines() == [
        line,
        "imagenet-train: wrote i.json, the index of the shards; commit it, since a clone reads "
        "them by it: git add i.json",
    ]
    written = Path("i.json").read_bytes()
    assert describe_remote("imagenet-train", settings) == line
    assert Path("i.json").read_bytes() == written
    counted = tuple(
        IndexedFile(name=name, bytes=size, sha256="0" * 64, images=1000)
        for name, size in SIZES.items()
    )
    write_index(ShardIndex(shards=counted), Path("i.json"))
    assert ": 4,000 images in 4 shards of " in describe_remote("imagenet-train", settings)


@pytest.mark.parametrize(
    ("data", "needed"),
    [({}, 1000), ({"order": "shards", "block_shards": 1}, 700), ({"order": "shards"}, 1000)],
)
def test_shards_that_the_cache_cannot_hold_are_refused(place, data, needed, monkeypatch):
    params = build_params(place, **data)
    describe_remote("imagenet-train", params.datasets["imagenet-train"])
    monkeypatch.setenv(cache_room.SIZE_ENV, str(needed / 1e9))
    assert not list(find_cache_problem(params))
    monkeypatch.setenv(cache_room.SIZE_ENV, str((needed - 1) / 1e9))
    (problem,) = find_cache_problem(params)
    assert problem.startswith("cache/shards: found room for ")
    assert "data.order: shards" in problem


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"root": "s3://b/a", "tracked_by": "i"}, "expected webdataset or parquet: only shards"),
        (
            {"root": "s3://b/a", "tracked_by": "s3://b/a", "layout": "webdataset"},
            "found tracked_by s3://b/a, expected a local file",
        ),
        (
            {"root": "s3://b/a", "tracked_by": "shards/a", "layout": "webdataset"},
            r"found tracked_by shards/a of the shards at s3://b/a, expected a \.json",
        ),
    ],
)
def test_a_root_in_a_store_needs_shards_and_a_local_index(settings, expected):
    with pytest.raises(ValueError, match=expected):
        DatasetParams.model_validate(settings)


def test_an_index_is_of_one_root(place):
    values = load_yaml((ROOT / "params.yaml").read_text(encoding="utf-8"))
    shared = {"tracked_by": "shards/i.json", "layout": "parquet", "root": "s3://b/a"}
    values["datasets"]["imagenet-train"] = {**shared, "split": "train"}
    values["datasets"]["imagenet"] = {**shared, "split": "validation"}
    parse_params(values, "params.yaml")
    values["datasets"]["imagenet"] |= {"root": "s3://b/c", "tracked_by": "shards/./i.json"}
    with pytest.raises(
        ParamsError,
        match=r"datasets\.imagenet\.tracked_by: found shards/\./i\.json, the index of s3://b/a too",
    ):
        parse_params(values, "params.yaml")


def test_a_store_that_cannot_be_reached_ends_in_status_75(place, monkeypatch):
    params = build_params(place)

    def fail(name, dataset):
        raise RetryLater("s3://bucket: the store cannot be reached")

    monkeypatch.setattr(plan, "describe_remote", fail)
    with pytest.raises(
        RetryLater, match=r"^datasets\.imagenet-train\.root: s3://bucket: the store"
    ):
        plan.is_available(params, "imagenet-train")


def test_blocks_of_shards_need_shards(place):
    values = load_yaml((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values["data"] = {"order": "shards"}
    with pytest.raises(
        ParamsError, match=r"data\.order: found shards with datasets\.imagenet-train"
    ):
        parse_params(values, "params.yaml")


def test_plans_are_as_before_unless_the_order_is_another(place):
    plain, blocks = (
        resolve_train_plan(build_params(place, **data), "none").model_dump_json()
        for data in ({}, {"order": "shards"})
    )
    assert '"order"' not in plain
    assert "block_shards" not in plain
    assert '"order":"shards"' in blocks


def test_the_report_says_which_order_it_was(place, monkeypatch):
    def list_facts(**data: object) -> str:
        params = build_params(place, **data).model_dump(mode="json", by_alias=True)
        plan_type = type("Plan", (), {"params": params, "rendered": (), "datasets": ()})
        comparison: Comparison = type("Found", (), {"plan": plan_type})  # type: ignore[assignment]
        return str(build_facts_table(comparison, place, "imagenet-train"))

    assert "Order of the images" not in list_facts()
    assert "blocks of 3 shards drawn anew" in list_facts(order="shards", block_shards=3)
    assert "blocks of 16 shards drawn anew" in list_facts(order="shards")
