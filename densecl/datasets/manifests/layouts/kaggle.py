"""Layout kaggle: `ILSVRC/Data/CLS-LOC/train` with class folders, and the flat `val`, whose labels
are in LOC_val_solution.csv.
"""

from contextlib import suppress
from pathlib import Path

from densecl.config.data_params import DatasetParams
from densecl.datasets.manifests.layouts.csv_rows import iter_csv_rows
from densecl.datasets.manifests.layouts.labelled_files import LabelledFiles, describe_counts
from densecl.datasets.storage.filenames import WNID, to_printable
from densecl.datasets.storage.image_root import open_image_root, read_file
from densecl.errors import DataError

SOLUTION_FILE = "LOC_val_solution.csv"
COLUMNS = ["ImageId", "PredictionString"]
WITHOUT_LABEL = "without a row in " + SOLUTION_FILE
MAX_LEVELS = 5  # above the flat folder: val, CLS-LOC, Data, ILSVRC, and the folder of all


def list_kaggle_val(source: DatasetParams) -> LabelledFiles:
    """Every image of the flat val with its class; DataError for a row that is not valid."""
    root = Path(source.root)
    content = open_image_root(root, follow_links=source.follow_links).read_folder()
    wnids, skipped = _read_solution(root), content.skipped
    images = []
    for name in content.images:
        wnid = wnids.pop(name.rpartition(".")[0], None)
        if wnid is None:
            skipped[WITHOUT_LABEL] += 1
        else:
            images.append((name, wnid))
    notes = [describe_counts(wnid for _, wnid in images)]
    if wnids:
        notes.append(f"{len(wnids):,} rows of {SOLUTION_FILE} have no file")
    own_names = tuple(name for name, _ in images)
    return LabelledFiles(images, +skipped, tuple(notes), own_names)


def _read_solution(root: Path) -> dict[str, str]:
    """Wnid by the name of the image, from the file beside the images or some folders above."""
    above = (*root.absolute().parents[:MAX_LEVELS], *root.resolve().parents[:MAX_LEVELS])
    for folder in (root, *above):  # the root may be a link into the unpacked archive
        with suppress(FileNotFoundError, NotADirectoryError):
            text = read_file(folder / SOLUTION_FILE).decode("utf-8-sig", "replace")
            return _parse_solution(folder / SOLUTION_FILE, text)
    raise DataError(
        f"{to_printable(root)}: found images without class folders, and no {SOLUTION_FILE} beside "
        "them or above; put it beside the folder ILSVRC, or set layout: devkit with ImageNet's "
        "devkit"
    )


def _parse_solution(path: Path, text: str) -> dict[str, str]:
    wnids = dict[str, str]()
    for line, (name, prediction) in iter_csv_rows(path, text, COLUMNS):
        boxes = prediction.split()[::5]  # a wnid and four numbers per box
        if len(set(boxes)) != 1 or not WNID.fullmatch(boxes[0]) or name in wnids:
            raise DataError(
                f"{to_printable(path)}: line {line}: found image '{to_printable(name)}' "
                f"with classes {to_printable(', '.join(sorted(set(boxes))))[:80]}, expected a "
                "new image with one wnid"
            )
        wnids[name] = boxes[0]
    return wnids
