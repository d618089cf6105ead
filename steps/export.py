"""Write a trained model for use elsewhere, in the formats of other tools."""

import shutil

from densecl import paths
from densecl.errors import DenseclError
from densecl.exports.backbone import export_backbone
from densecl.exports.formats import FORMATS, copy_weights
from densecl.network.exported import load_exported_model


def main(mode: str, seed: int, format: str = "torch", backbone: bool = False) -> None:
    """Write exports/<mode>-<seed>/: for `torch` weights, config, heads and `classifier.pt2`; for
    another format its folder; with `backbone` only that, for detection frameworks.
    """
    if backbone and format != "torch":
        raise DenseclError(
            f"--backbone --format {format}: found two formats, expected one; --backbone writes "
            "what detection frameworks read"
        )
    source, cell = paths.model_folder(mode, seed), paths.export_folder(mode, seed)
    if not (source / "model.safetensors").exists():
        raise DenseclError(
            f"{source}/model.safetensors: no such file; `dvc repro train@{mode}-{seed}` makes it"
        )
    model, config = load_exported_model(source)
    name = "backbone" if backbone else format
    folder = cell if name == "torch" else cell / name
    if folder != cell:
        shutil.rmtree(folder, ignore_errors=True)
    if backbone:
        export_backbone(model, config, folder)
    else:
        FORMATS[format](model, config, folder)
    if name == "torch":
        copy_weights(source, folder)
    for path in folder.rglob("*.safetensors"):
        if not path.is_symlink():  # safetensors makes its files the owner's alone
            path.chmod(folder.stat().st_mode & 0o666)
    print(folder)
    if name == "hf":
        print(f"to publish it: hf upload USER/NAME {folder}")
