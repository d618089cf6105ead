"""Corrupt one image by the authors' packages: run in an environment of their time, not in this one.

`python published_corruptions.py IMAGE.npy OUT.npz SEED`: uint8 [224, 224, 3] -> uint8
[5, 224, 224, 3] by `<package>/<corruption>`, with random numbers of one generator per image.
"""

import importlib
import sys
import types
from pathlib import Path

import numpy as np

SEVERITIES = (1, 2, 3, 4, 5)
PACKAGES = ("imagenet_c", "imagecorruptions")
# ImageMagick's blur by a library that is not there; the other package has its own.
NEED_MAGICK = ("motion_blur", "snow")


def main(image_file, out_file, seed):
    replace_wand()
    image = np.load(image_file)
    names = importlib.import_module("imagecorruptions").get_corruption_names("all")
    results = {}
    for package in PACKAGES:
        module = importlib.import_module(f"{package}.corruptions")
        accept_old_arguments(module)
        for name in names:
            if package == "imagenet_c" and name in NEED_MAGICK:
                continue
            results[f"{package}/{name}"] = np.stack(
                [corrupt(package, name, severity, image, int(seed)) for severity in SEVERITIES]
            )
    np.savez_compressed(out_file, **results)


def corrupt(package, name, severity, image, seed):
    """With the generator that densecl uses, in place of the global random state."""
    random = np.random.Generator(np.random.PCG64(seed))
    for old, new in {
        "normal": random.normal,
        "uniform": random.uniform,
        "poisson": random.poisson,
        "randint": random.integers,
        "default_rng": lambda *_: random,
    }.items():
        setattr(np.random, old, new)
    module = importlib.import_module(package)
    return module.corrupt(image.copy(), corruption_name=name, severity=severity)


def accept_old_arguments(module):
    """What these packages expect of scikit-image, and where they look for their photographs."""
    gaussian = module.gaussian

    def blur(image, sigma, multichannel=False, **options):
        return gaussian(image, sigma, channel_axis=-1 if multichannel else None, **options)

    module.gaussian = blur
    photographs = Path(importlib.import_module("imagecorruptions").__file__).parent / "frost"
    module.resource_filename = lambda _, path: str(photographs / Path(path).name)


def replace_wand():
    """Modules of these names, which the authors' package only imports for `NEED_MAGICK`."""
    for name in ("wand", "wand.image", "wand.api", "wand.color"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["wand.image"].Image = object
    sys.modules["wand.api"].library = types.SimpleNamespace(
        MagickMotionBlurImage=types.SimpleNamespace()
    )
    sys.modules["wand"].color = sys.modules["wand.color"]


if __name__ == "__main__":
    main(*sys.argv[1:])
