"""Files of the user's that say the class of an image: `class_map` and `class_list`."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from densecl import paths
from densecl.config.data_params import DatasetParams
from densecl.runtime.links import replace_link


def link_label_files(datasets: Mapping[str, DatasetParams]) -> None:
    """Make data/label-files what the stages `prepare` depend on: links to the files, by dataset,
    which DVC hashes. A dataset without any has an empty folder there.
    """
    shutil.rmtree(paths.LABEL_FILES, ignore_errors=True)
    for name, dataset in datasets.items():
        (paths.LABEL_FILES / name).mkdir(parents=True)
        for key in ("class_map", "class_list"):
            file = getattr(dataset, key)
            if file is not None and Path(file).is_file():
                replace_link(paths.LABEL_FILES / name / key, Path(file))
