"""Write a trained model in the formats of other tools: timm's folder, Hugging Face, ONNX, torch."""

import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from timm.models import save_for_hf

from densecl.artifacts import write_text
from densecl.datasets.imagenet import load_class_descriptions
from densecl.datasets.storage.filenames import to_printable
from densecl.datasets.synthetic.classes import DRAWN_CLASSES
from densecl.errors import DenseclError
from densecl.network.preprocessing import resolve_preprocessing
from densecl.network.vit import Backbone
from densecl.pages.templates import create_environment

TEMPLATES = Path(__file__).parent / "templates"
TIMM_SETTINGS = {"input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode"}
MAX_ONNX_ERROR = 1e-3  # of a logit, against torch; rounding alone is some 1e-5


def export_timm(model: Backbone, config: Mapping[str, Any], folder: Path) -> None:
    """A folder for `timm.create_model("local-dir:<folder>", pretrained=True)`, with the
    preprocessing that the model was evaluated with.
    """
    words = load_class_descriptions() | {c.wnid: c.name for c in DRAWN_CLASSES}
    settings = resolve_preprocessing(model).model_dump(include=TIMM_SETTINGS)
    anything = cast("Any", model)  # torch declares all attributes as tensors or modules
    anything.pretrained_cfg = {  # timm refuses a file with keys of ours
        key: value for key, value in anything.pretrained_cfg.items() if key != "exif"
    }
    save_for_hf(
        model,
        str(folder),
        model_config={
            "label_names": list(config["classes"]),
            "label_descriptions": {wnid: words.get(wnid, wnid) for wnid in config["classes"]},
        },
        model_args=dict(config["model_args"]),
        safe_serialization=True,
        data_config=settings,
    )


def export_hf(model: Backbone, config: Mapping[str, Any], folder: Path) -> None:
    """The folder of a repository on Hugging Face: timm's, with a model card."""
    settings = resolve_preprocessing(model)
    export_timm(model, config, folder)
    facts = {
        **config,
        "exif": settings.exif,
        "parameters": sum(p.numel() for p in model.parameters()),
        "size": settings.input_size[1],
        "example": "image.jpg",
    }
    template = create_environment(TEMPLATES).overlay(autoescape=False)  # code in Markdown
    write_text(folder / "README.md", template.get_template("hf_card.md").render(facts))


def export_onnx(model: Backbone, config: Mapping[str, Any], folder: Path) -> None:
    """`model.onnx`: normalised images [B, 3, H, W] of any B to logits [B, C]. DenseclError unless
    onnxruntime computes the logits that torch does.
    """
    try:
        import onnx  # noqa: F401 - torch imports it while it writes
        import onnxruntime
    except ImportError as error:
        raise DenseclError(
            f"--format onnx: {error.name} is not installed; `pip install 'densecl[onnx]'`"
        ) from None
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    shape = resolve_preprocessing(model).input_size
    with warnings.catch_warnings():
        # The exporter by tracing: the one by torch.export needs another package, onnxscript.
        warnings.simplefilter("ignore", (DeprecationWarning))
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        torch.onnx.export(
            model,
            (torch.zeros(2, *shape),),
            str(path),
            input_names=["images"],
            output_names=["logits"],
            dynamic_axes={"images": {0: "batch"}, "logits": {0: "batch"}},
            dynamo=False,
        )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for batch in (1, 3):  # neither is the traced one
        images = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0))
        logits = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
        with torch.inference_mode():
            difference = float((logits - model(images)).abs().max())
        if not difference <= MAX_ONNX_ERROR:
            path.unlink()
            raise DenseclError(
                f"{path}: onnxruntime's logits differ from torch's by {difference:.2g}, expected "
                f"at most {MAX_ONNX_ERROR:g}; this architecture cannot be exported to ONNX here"
            )
    settings = resolve_preprocessing(model).model_dump_json(
        indent=1, include={*TIMM_SETTINGS, "exif"}
    )
    write_text(folder / "preprocessing.json", settings + "\n")
    write_text(folder / "classes.txt", "\n".join(map(to_printable, config["classes"])) + "\n")


def export_torch(model: Backbone, _: Mapping[str, Any], folder: Path) -> None:
    """`classifier.pt2`: a torch.export program from normalised images [B, 3, H, W] of any B to
    logits [B, C].
    """
    folder.mkdir(parents=True, exist_ok=True)
    images = torch.zeros(2, *resolve_preprocessing(model).input_size)
    program = torch.export.export(
        model, (images,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},)
    )
    torch.export.save(program, folder / "classifier.pt2")


FORMATS: Mapping[str, Callable[[Backbone, Mapping[str, Any], Path], None]] = {
    "timm": export_timm,
    "torch": export_torch,
    "onnx": export_onnx,
    "hf": export_hf,
}


def copy_weights(source: Path, folder: Path) -> None:
    """Weights, config and projection heads as training wrote them; a damaged file is an error."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("model.safetensors", "config.json", "heads.safetensors"):
        file = source / name
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt"):
                pass  # its header covers the whole file
        shutil.copy(file, folder / name)
