"""`densecl predict` and `densecl embed` on a random model, compared with timm's own path."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from densecl.__main__ import main
from densecl.errors import DataError
from densecl.predict.images import list_images
from tests.conftest import WNIDS, draw_set, write_model

ARGS = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
CLASSES = ["n01440764", "n90000006", "cats|\x1b[31m"]  # words of ImageNet's, of drawn ones, none


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A model, images in class folders, and the same in an archive."""
    root = tmp_path_factory.mktemp("predict")
    write_model(root / "model", CLASSES, ARGS)
    draw_set(root / "images", 2, size=50)
    with zipfile.ZipFile(root / "images.zip", "w") as archive:
        for file in sorted((root / "images").rglob("*.JPEG")):
            archive.write(file, file.relative_to(root))
    return root


@pytest.fixture
def there(place, monkeypatch) -> Path:
    monkeypatch.chdir(place)
    return place


def run_timm(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens [prefix + N, E] and probabilities [C] of an image, without this project's code."""
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, **ARGS).eval()
    model.load_state_dict(load_file("model/model.safetensors"))
    cfg = model.pretrained_cfg
    transform = timm.data.create_transform(
        (3, 32, 32),
        mean=cfg["mean"],
        std=cfg["std"],
        crop_pct=cfg["crop_pct"],
        interpolation=cfg["interpolation"],
    )
    with torch.inference_mode():
        images = transform(Image.open(path).convert("RGB"))[None]
        return model.forward_features(images)[0], model(images).softmax(1)[0]


def read_csv(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_an_image_gets_the_probabilities_of_timm(there, capsys):
    image = next(Path("images", WNIDS[0]).iterdir())
    assert main(["predict", "model", str(image), "--top", "3", "--format", "csv"]) == 0
    rows = read_csv(capsys.readouterr().out)
    _, expected = run_timm(image)
    assert [int(row["rank"]) for row in rows] == [1, 2, 3]
    found = {row["wnid"]: float(row["probability"]) for row in rows}
    assert [found[c] for c in CLASSES] == pytest.approx(expected.tolist(), abs=2e-6)
    names = {row["wnid"]: row["name"] for row in rows}
    assert names == {"n01440764": "tench", "n90000006": "mug", CLASSES[2]: CLASSES[2]}


def test_a_link_out_of_the_folder_is_an_error(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "outside.png")
    folder = tmp_path / "folder"
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(folder / "real.png")
    (folder / "inside.png").symlink_to("real.png")
    assert [name for name, _ in list_images(folder)] == ["inside.png", "real.png"]
    (folder / "leaves.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(DataError, match=r"leaves.png: link that leaves .*"):
        list_images(folder)


def test_a_folder_and_an_archive_give_the_same_in_every_format(there, capsys):
    given = {}
    for images in ("images", "images.zip"):
        for kind in ("csv", "json", "table"):
            assert main(["predict", "model", images, "--top", "2", "--format", kind]) == 0
            given[images, kind] = capsys.readouterr().out
            assert given[images, kind] == given["images", kind]
    rows, content = read_csv(given["images", "csv"]), json.loads(given["images", "json"])
    names = [f"{w}/image_0_{n}.JPEG" for w in WNIDS for n in (0, 1)]
    assert [image["image"] for image in content] == names
    flat = [(i["image"], c["wnid"], c["probability"]) for i in content for c in i["classes"]]
    assert flat == [(r["image"], r["wnid"], float(r["probability"])) for r in rows]
    table = given["images", "table"]
    assert len(table.splitlines()) == 1 + 2 * 6
    assert "\x1b" not in table


def test_an_image_that_cannot_be_read_is_named_and_the_others_are_done(there, tmp_path, capsys):
    shutil.copytree("images", tmp_path / "some")
    (tmp_path / "some" / WNIDS[0] / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    command = ["predict", "model", str(tmp_path / "some"), "--format", "csv"]
    assert main([*command, "--output", str(tmp_path / "out.csv"), "--batch-size", "2"]) == 2
    told = capsys.readouterr().err
    assert "broken.png: damaged" in told
    assert "error: 1 of 7 images cannot be read" in told
    assert len(read_csv((tmp_path / "out.csv").read_text())) == 6 * 3


@pytest.mark.parametrize(
    "words", [["predict", "out.csv"], ["embed", "out.npz"], ["embed", "out.parquet"]]
)
def test_without_a_readable_image_nothing_is_written(there, tmp_path, capsys, words):
    command, output = words
    folder = tmp_path / "some"
    folder.mkdir()
    for name in ("1.png", "2.png"):
        (folder / name).write_bytes(b"nothing")
    written = tmp_path / output
    assert main([command, "model", str(folder), "--output", str(written)]) == 2
    told = capsys.readouterr()
    assert "error: none of 2 images can be read (named above)" in told.err
    assert told.out == ""
    assert not written.exists()


def test_a_snapshot_made_of_links_is_read_where_its_owner_is_trusted(there, tmp_path, capsys):
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    (snapshot / "1.jpg").symlink_to(next(Path("images", WNIDS[0]).iterdir()).resolve())
    assert main(["predict", "model", str(snapshot)]) == 2
    assert "link that leaves " in (told := capsys.readouterr().err)
    assert "or give the command --follow-links" in told
    assert main(["predict", "model", str(snapshot), "--follow-links", "--format", "csv"]) == 0
    assert {row["image"] for row in read_csv(capsys.readouterr().out)} == {"1.jpg"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere", "images"], "found no model.safetensors and no config.json"),
        (["images", "images"], "found no model.safetensors"),
        (["damaged", "images"], "model.safetensors cannot be used"),
        (["other", "images"], "model.safetensors and config.json cannot be used"),
        (["model", "nowhere.jpg"], "nowhere.jpg: cannot be opened"),
        (["model", "empty"], "found no image"),
        (["model", "pipe.png"], "pipe.png: expected an image, a folder or an archive"),
        (
            ["fewer", "images"],
            "config.json cannot be used (ValueError: 2 different classes for 3 outputs)",
        ),
        (["diverged", "images"], "(ValueError: head.bias is not finite: damaged, or the training"),
        (["nameless", "images"], "nameless: its config.json names no classes"),
        (["hub", "images"], "'hf-hub:stranger/model'"),
        (["fetches", "images"], "model_args: found pretrained, pretrained_cfg_overlay, expected"),
        (["letters", "images"], "(ValueError: classes that are no list of names)"),
        (["turned", "images"], "(ValueError: exif 'maybe', expected one of ignore, apply)"),
        (["exported", "images"], "(ValueError: the config of an export; name the folder that"),
        (["model", "strip.png"], "strip.png: strip: one side is more than 250 times as long"),
        (["model", "images", "--output", ""], "--output: found '.', expected the name of a file"),
    ],
)
def test_what_cannot_be_used_is_one_line(there, capsys, words, says):
    Path("empty").mkdir(exist_ok=True)
    if not Path("pipe.png").exists():
        os.mkfifo("pipe.png")
    shutil.copytree("model", "fewer", dirs_exist_ok=True)
    config = json.loads(Path("model/config.json").read_text())
    Path("fewer/config.json").write_text(json.dumps(config | {"classes": CLASSES[:2]}))
    overlay = {"url": "http://127.0.0.1:9/x.pth", "hf_hub_id": None}
    for name, changed in {
        "fetches": {"model_args": ARGS | {"pretrained": True, "pretrained_cfg_overlay": overlay}},
        "letters": {"classes": "abc"},
        "nameless": {"classes": None},
        "hub": {"architecture": "hf-hub:stranger/model"},
        "turned": {"exif": "maybe"},
        "exported": {"model_args": ARGS | {"num_classes": 3}},
    }.items():
        shutil.copytree("model", name, dirs_exist_ok=True)
        Path(name, "config.json").write_text(json.dumps(config | changed))
    Image.new("RGB", (100_000, 1)).save("strip.png")
    shutil.copytree("model", "diverged", dirs_exist_ok=True)
    weights = load_file("model/model.safetensors")
    weights["head.bias"][0] = torch.nan
    save_file(weights, "diverged/model.safetensors", metadata={"format": "pt"})
    for name, file in (("damaged", "model.safetensors"), ("other", "config.json")):
        shutil.copytree("model", name, dirs_exist_ok=True)
        Path(name, file).write_text("{}")
    assert main(["predict", *words]) == 2
    told = capsys.readouterr().err
    assert says in told
    assert told.count("error: ") == 1
    assert "Traceback" not in told


@pytest.mark.parametrize("kind", ["cls", "mean", "patches"])
def test_features_are_those_of_timm(there, tmp_path, kind, capsys):
    for name in ("f.npz", "f.parquet"):
        command = ["embed", "model", "images", "--features", kind, "--batch-size", "4"]
        assert main([*command, "--output", str(tmp_path / name)]) == 0
    arrays = np.load(tmp_path / "f.npz")
    table = pq.read_table(tmp_path / "f.parquet")
    shape = [int(side) for side in table.schema.metadata[b"shape"].split()]
    listed = np.array(table["features"].to_pylist(), np.float32).reshape(-1, *shape)
    assert arrays["image"].tolist() == table["image"].to_pylist()
    assert np.array_equal(listed, arrays["features"])
    for name, row in zip(arrays["image"], arrays["features"], strict=True):
        tokens, _ = run_timm(Path("images", name))
        expected = {"cls": tokens[0], "mean": tokens[1:].mean(0), "patches": tokens[1:]}[kind]
        assert row == pytest.approx(expected.numpy(), abs=2e-5)


@pytest.mark.parametrize("name", ["alone.png", "model/config.json", "./model/../alone.png"])
def test_an_output_that_is_an_input_is_refused(there, capsys, name):
    shutil.copy(next(p for p in Path("images").rglob("*") if p.is_file()), "alone.png")
    before = Path(name).read_bytes()
    assert main(["predict", "model", "alone.png", "--output", name]) == 2
    assert f"--output {Path(name)}: found the name of a file" in capsys.readouterr().err
    assert Path(name).read_bytes() == before


def test_an_output_of_another_kind_is_an_error(there, capsys):
    assert main(["embed", "model", "images", "--output", "f.txt"]) == 2
    assert "expected a name that ends in .parquet or .npz" in capsys.readouterr().err


def test_pictures_show_the_image_beside_attention_and_matches(there, tmp_path, capsys):
    image = str(next(Path("images", WNIDS[0]).iterdir()))
    other = str(next(Path("images", WNIDS[1]).iterdir()))
    pictures = ["--pictures", str(tmp_path)]
    assert main(["predict", "model", "images", "--attention", *pictures, "--batch-size", "4"]) == 0
    drawn = sorted(path.name for path in tmp_path.iterdir())
    assert drawn == [f"attention-{n + 1:05d}-image_0_{n % 2}.png" for n in range(6)]
    with Image.open(tmp_path / drawn[0]) as picture:
        pixels = np.asarray(picture).astype(int)
    left, right = pixels[:, :448], pixels[:, -448:]
    assert np.abs(left - right).max() > 20  # the most attended patch is covered
    capsys.readouterr()
    assert main(["predict", "model", "--matches", image, other, *pictures]) == 0
    assert "of 16 patches of image_0_" in capsys.readouterr().err
    assert main(["predict", "model", "--matches", image, image, *pictures]) == 0
    told = capsys.readouterr().err
    assert "16 match one of" in told  # each is its own best match
    assert "(mean cosine 1.00)" in told
    with Image.open(tmp_path / "matches.png") as picture:
        assert picture.size == (2 * 448 + 16, 448)


def test_help_and_usage_errors_import_no_torch(there):
    code = (
        "import sys\nfrom densecl.__main__ import main\n"
        "try:\n    main({words})\nexcept SystemExit as end:\n    status = end.code\n"
        "print('torch' in sys.modules, status)"
    )
    for words, ends in ((["predict", "--help"], "False 0"), (["predict", "model"], "False 2")):
        done = subprocess.run(
            [sys.executable, "-c", code.format(words=words)],
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.splitlines()[-1] == ends


@pytest.mark.parametrize("options", [["--top", "1"], ["--format", "csv", "--attention"]])
def test_options_may_stand_before_the_images(there, tmp_path, capsys, options):
    image = str(next(Path("images", WNIDS[0]).iterdir()))
    pictures = ["--pictures", str(tmp_path)]
    assert main(["predict", "model", *options, *pictures, image]) == 0
    before = capsys.readouterr().out
    assert main(["predict", "model", image, *options, *pictures]) == 0
    assert capsys.readouterr().out == before
    for name in ("-dash.png", "--odd.png"):
        shutil.copyfile(image, name)
        for words in (["model", "--", name], ["model", "--top", "1", "--", name]):
            assert main(["predict", *words]) == 0
            assert name in capsys.readouterr().out
        Path(name).unlink()


@pytest.mark.parametrize("words", [["a", "b", "c"], ["a", "b", "--nothing"], ["a", "--nothing"]])
def test_words_too_many_are_a_usage_error(words, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["predict", *words])
    assert "unrecognized arguments: " in capsys.readouterr().err
