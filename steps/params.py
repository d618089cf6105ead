"""Write docs/params.md, the page of every key of params.yaml."""

from densecl import paths
from densecl.artifacts import write_text
from densecl.config import reference
from train import FLAGS


def main() -> None:
    write_text(paths.PARAMS_PAGE, reference.render_params_page(list_flags()))
    print(paths.PARAMS_PAGE)


def list_flags() -> dict[str, str]:
    """Flags of train.py, by the key that they set."""
    return {"modes": "--cl-mode", "seeds": "--seed"} | {
        f"{section}.{name}": f"--{name.replace('_', '-')}"
        for section, names in FLAGS.items()
        for name in names
    }
