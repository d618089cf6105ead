"""A project whose two datasets lie in a store, as shards."""

from pathlib import Path

from densecl.config.params import DatasetParams
from densecl.datasets.manifests.layouts.sources import list_source, list_train_classes
from densecl.datasets.manifests.scan import scan_listing
from densecl.datasets.pack import pack_images
from tests.pipelines.project_factory import project

FOLDERS = {"imagenet-train": "images/train", "imagenet": "images/val"}
SHARDS = {"imagenet-train": 4, "imagenet": 1}
FILES = ("data/manifests/{}.parquet", "data/skipped/{}.json")


def make_shard_project(place: Path, store: Path) -> Path:
    """Two datasets as shards in a store, which is made with the first project."""
    sets = {
        name: {
            "root": f"file://{store}/{name}",
            "tracked_by": f"shards/{name}.json",
            "layout": "webdataset",
        }
        for name in FOLDERS
    }
    project(place, datasets=sets, evaluate={"datasets": ["imagenet"]})
    for name, folder in FOLDERS.items():
        if (store / name).exists():
            continue
        (store / name).mkdir(parents=True)
        root = place / folder
        source = DatasetParams(root=str(root), tracked_by=str(root))
        classes = list_train_classes(source)
        frame = scan_listing(name, root, list_source(source, classes), classes, 1).frame
        size = frame["bytes"].sum() // SHARDS[name] + 1000
        pack_images(name, frame, classes, root, store / name, size)
        assert len(list((store / name).glob("*.tar"))) == SHARDS[name]
    return place


def read_manifests(place: Path) -> list[bytes]:
    return [(place / text.format(name)).read_bytes() for name in FOLDERS for text in FILES]
