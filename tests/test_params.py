"""`params.yaml`: what it accepts, and the one line a mistake gives."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings, strategies as st

from densecl.config.params import MODES, Params, ParamsError, load_params, parse_params
from densecl.datasets.synthetic.classes import SYNTHETIC_CLASSES

ROOT = Path(__file__).parent.parent
FILES = [
    ROOT / "params.yaml",
    *sorted((ROOT / "presets").glob("*.yaml")),
    ROOT / "tests" / "small.yaml",
]


def default() -> dict:
    return yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))


def changed(key: str, value: object) -> dict:
    values = default()
    place = values
    *path, last = key.split(".")
    for part in path:
        place = place.setdefault(part, {})
    place[last] = value
    return values


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.name)
def test_shipped_files_are_valid(file):
    assert load_params(file).modes == MODES


@pytest.mark.parametrize("file", FILES[:-1], ids=lambda f: f.name)
def test_what_a_user_starts_from_has_three_seeds_and_six_sets(file):
    """The least number of seeds for a statement about a mode; where images are drawn, other
    viewpoints too.
    """
    params = load_params(file)
    assert params.seeds == (0, 1, 2)
    assert ("viewpoint" in params.evaluate.datasets) == bool(params.render)
    assert {*params.evaluate.datasets} - {"viewpoint"} == {
        "imagenet",
        "imagenet-a",
        "imagenet-r",
        "imagenet-v2",
        "stylized",
        "sketch",
    }


def test_the_default_run_uses_its_sizes_as_they_are():
    """No queue is cut to half of an epoch's keys, and no image is enlarged."""
    params = load_params(ROOT / "params.yaml")
    size, patch = (params.network.model_args[key] for key in ("img_size", "patch_size"))
    assert params.contrast.patches_per_image < (size // patch) ** 2
    assert all(drawn.size >= size for drawn in params.render.values())
    drawn = len(SYNTHETIC_CLASSES) * params.render["imagenet-train"].images_per_class
    pairs = drawn // params.train.batch_size * params.train.batch_size  # image pairs per epoch
    dense, pooled = (params.contrast.resolve_mode(mode) for mode in ("dense", "global"))
    assert dense.queue_size <= pairs * dense.patches_per_image / 2
    assert pooled.queue_size <= pairs / 2


def test_the_finetune_preset_has_the_method_s_defaults():
    params = load_params(ROOT / "presets" / "imagenet-finetune.yaml")
    assert params.network.model_name == "vit_tiny_patch16_224"
    assert (params.train.batch_size, params.train.learning_rate) == (256, 1e-5)
    assert (params.train.warmup_epochs, params.train.grad_clip) == (5, 5.0)
    contrast = params.contrast
    assert (contrast.lambda_weight, contrast.queue_size, contrast.temperature) == (0.5, 65536, 0.2)
    assert (contrast.sampling_strategy, contrast.dense_dim, contrast.patches_per_image) == (
        "random",
        128,
        50,
    )
    assert params.data.view1.scale == (0.08, 1.0)
    assert params.data.view2.scale == (0.2, 1.0)
    assert params.data.view2.blur == 0.2


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (
            "contrast.lambda_weight",
            1.5,
            r"contrast.lambda_weight: found 1.5; input should be less than or equal to 1",
        ),
        (
            "contrast.lambda_wieght",
            0.5,
            r"contrast.lambda_wieght: unknown key; did you mean lambda_weight\? allowed: ",
        ),
        ("modes", ["dens"], r"modes: found 'dens', expected one of modes or variants \(dense, "),
        ("modes", ["none", "none"], r"modes: none named more than once"),
        ("train.epochs", "3", r"train.epochs: found '3'; input should be a valid integer"),
        ("train.warmup_epochs", 50, r"train: warmup_epochs must be below epochs"),
        ("data.view1.scale", [0.9, 0.1], r"data.view1: scale must be two areas, low <= high <= 1"),
        (
            "contrast.dense",
            {"queue_size": 0},
            r"contrast.dense: queue_size: found 0; input should be greater",
        ),
        (
            "contrast.global",
            {"patches_per_image": 3},
            r"contrast.global: patches_per_image: unknown key",
        ),
        (
            "evaluate.datasets",
            ["imagenet", "imagenet-c"],
            r"evaluate.datasets: found 'imagenet-c', expected one of datasets \(imagenet, ",
        ),
        (
            "evaluate.datasets",
            ["sketch"],
            r"evaluate.datasets: imagenet is missing: it is the control",
        ),
        (
            "datasets.dense",
            {"root": "x", "tracked_by": "x"},
            r"datasets: 'dense' cannot name a dataset",
        ),
        ("datasets.sketch", {"root": "x"}, r"datasets.sketch.tracked_by: missing"),
        (
            "render.typo",
            {"style": "photo", "folder": "typo", "images_per_class": 1},
            r"render: found 'typo', expected one of datasets or transfer \(imagenet, ",
        ),
        ("render.sketch.folder", "../x", r"render.sketch.folder: found '../x'"),
        (
            "evaluate.probes",
            {"occlusion": {"shares": [0.5, 0.25]}},
            r"evaluate.probes.*shares: found \[0.5, 0.25\], expected rising numbers, the last above 0",
        ),
        (
            "evaluate.probes",
            {"viewpoint": {"perspective": [0.5, 1.0]}},
            r"evaluate.probes.*perspective.*less than 1",
        ),
        (
            "evaluate.probes",
            {"occlusion": {"masks": "new-classes"}},
            r"evaluate.probes.occlusion.masks: transfer.new-classes has no masks, expected an entry",
        ),
        (
            "evaluate.probes",
            {"localisation": {"test": "new-classes"}},
            r"evaluate.probes.localisation.test: transfer.new-classes has no masks or boxes, expected",
        ),
        (
            "evaluate.probes",
            {"segmentation": {"fit": "segmentation", "test": "segmentation"}},
            r"evaluate.probes.segmentation: found segmentation as fit and as test, expected two",
        ),
        (
            "transfer.x",
            {"root": "s3://bucket/images", "tracked_by": "x"},
            r"transfer.x: found s3://bucket/images as root, expected a folder or an archive on this",
        ),
        (
            "transfer.x",
            {"root": "x", "tracked_by": "x", "masks": "y/../x", "mask_values": "object"},
            r"transfer.x: found y/../x as root and as masks, expected two folders",
        ),
        ("nonsense", 1, r"nonsense: unknown key; allowed: modes, seeds, "),
    ],
)
def test_an_error_is_one_line_with_its_key(key, value, said):
    with pytest.raises(ParamsError, match=said) as caught:
        parse_params(changed(key, value), "params.yaml")
    assert str(caught.value).startswith("params.yaml: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "probe", "said"),
    [
        (
            {"layout": "voc"},
            {"segmentation": {"fit": "x", "test": "segmentation"}},
            "segmentation: the masks of transfer.x and transfer.segmentation are of different",
        ),
        (
            {"masks": "m", "mask_values": "classes"},
            {"segmentation": {"fit": "segmentation", "test": "x"}},
            "of different kinds, expected the same layout and mask_values of both",
        ),
        (
            {"layout": "ade20k"},
            {"localisation": {"test": "x"}},
            "localisation.test: the masks of transfer.x, of layout ade20k, show all of a scene",
        ),
        (
            {"layout": "voc"},
            {"knn": {"sets": {"x": "new-classes"}}},
            "knn.sets: transfer.x has the layout voc, expected folders, by which classes",
        ),
        ({"boxes": "b"}, {"segmentation": {"fit": "x", "test": "segmentation"}}, "x has no masks"),
    ],
)
def test_an_entry_that_cannot_serve_its_probe_is_refused_before_any_training(entry, probe, said):
    values = changed("evaluate.probes", probe)
    values["transfer"]["x"] = {"root": "x", "tracked_by": "x"} | entry
    with pytest.raises(ParamsError, match=f"params.yaml: evaluate.probes.{said}|{said}"):
        parse_params(values, "params.yaml")
    values["evaluate"]["probes"] = {"localisation": {"test": "x"}}
    if "boxes" in entry or entry.get("layout") == "voc":
        assert parse_params(values, "params.yaml").evaluate.probes.localisation


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("modes: [dense", "not readable as YAML"),
        ("- 1\n- 2", "found list, expected sections: modes"),
        ("modes: [none]\nmodes: [dense]", 'found duplicate key "modes" with value .* in line 2'),
    ],
)
def test_a_file_that_is_no_params(tmp_path, text, said):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ParamsError, match=said):
        load_params(tmp_path / "params.yaml")


def test_exponents_are_numbers(tmp_path):
    text = (
        (ROOT / "params.yaml")
        .read_text(encoding="utf-8")
        .replace("learning_rate: 0.002", "learning_rate: 1e-5")
    )
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    assert load_params(tmp_path / "params.yaml").train.learning_rate == 1e-5


def test_a_mode_reads_its_own_values_only():
    params = parse_params(changed("contrast.dense", {"lambda_weight": 0.25}), "params.yaml")
    assert params.contrast.resolve_mode("dense").lambda_weight == 0.25
    assert params.contrast.resolve_mode("global").lambda_weight == 0.2
    assert "patches_per_image" not in type(params.contrast.resolve_mode("global")).model_fields
    assert params.contrast.resolve_mode("none") is None


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=5,
)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    section=st.sampled_from([f.alias or n for n, f in Params.model_fields.items()]), value=values
)
def test_no_value_gives_anything_but_params_or_a_params_error(section, value):
    try:
        outcome = parse_params(default() | {section: value}, "params.yaml")
    except ParamsError as error:
        outcome = error
    assert isinstance(outcome, Params) or str(outcome).startswith("params.yaml: ")


@pytest.mark.parametrize("root", ["~", "~/photos", "~user/photos"])
@pytest.mark.parametrize("key", ["root", "tracked_by"])
def test_a_tilde_is_refused_and_makes_no_folder(root, key, tmp_path, monkeypatch):
    """Neither DVC nor the stages expand it."""
    values = default()
    values["render"], values["evaluate"]["datasets"] = {}, ["imagenet"]
    values["datasets"]["sketch"] = {"root": "photos", "tracked_by": "photos"} | {key: root}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ParamsError, match=f"datasets.sketch.{key}: found '{root}', expected a path"
    ):
        load_params(Path("params.yaml"))
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


@pytest.mark.parametrize("keys", ["retraining.notify.file", "evaluate.cell_cache"])
def test_a_tilde_of_a_file_that_we_write_is_refused(keys):
    values = default()
    section = values
    *outer, last = keys.split(".")
    for key in outer:
        section = section.setdefault(key, {})
    section[last] = "~/here"
    with pytest.raises(ParamsError, match=f"{keys}: found '~/here', expected a path without ~"):
        parse_params(values, "params.yaml")
