"""`densecl predict | embed`, or `python -m densecl ...`: use a trained model on images."""

import argparse
import importlib
import sys
from pathlib import Path
from typing import Any

from densecl.runtime import cli

FORMATS = ("table", "csv", "json")
FEATURES = ("cls", "mean", "patches")
MAX_COUNT = 10**9
MODEL_HELP = "folder with model.safetensors and config.json, such as models/dense/seed-0"
IMAGES_HELP = "an image, a folder or an archive (.tar, .tar.gz, .zip); all images below it"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="densecl", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    predict = _add_command(commands, "predict", "the most probable classes of images")
    predict.add_argument("images", nargs="?", type=Path, help=IMAGES_HELP)
    predict.add_argument("--top", type=int, default=5, metavar="K", help="classes per image (5)")
    predict.add_argument("--format", choices=FORMATS, default="table")
    predict.add_argument("--output", type=Path, metavar="FILE", help="instead of stdout")
    predict.add_argument(
        "--attention",
        action="store_true",
        help="draw what the CLS token attends to in the last block, one picture per image",
    )
    predict.add_argument(
        "--matches",
        nargs=2,
        type=Path,
        metavar=("A", "B"),
        help="draw which patches of image A match which of image B",
    )
    predict.add_argument("--pictures", type=Path, default=Path("pictures"), metavar="FOLDER")
    embed = _add_command(commands, "embed", "features of images, to Parquet or npz")
    embed.add_argument("images", type=Path, help=IMAGES_HELP)
    embed.add_argument("--features", choices=FEATURES, default="cls")
    embed.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help="a .parquet or .npz"
    )
    return parser


def _add_command(commands: Any, name: str, purpose: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=purpose, description=purpose)
    command.add_argument("model", type=Path, help=MODEL_HELP)
    command.add_argument(
        "--follow-links",
        action="store_true",
        help="also links that leave the folder, as in a snapshot of Hugging Face",
    )
    command.add_argument("--batch-size", type=int, default=64, metavar="N", help="images (64)")
    return command


def main(arguments: list[str] | None = None) -> int:
    """Exit status as in `densecl.errors`; 2 also where an image cannot be read."""
    parser = build_parser()
    parsed, others = parser.parse_known_args(arguments)
    args = vars(parsed)
    # argparse takes an optional argument as absent at the first option after MODEL.
    words = sys.argv[1:] if arguments is None else arguments
    name = others[-1] if others and others[:-1] in ([], ["--"]) else "-"
    is_name = not name.startswith("-") or "--" in words
    if args["command"] == "predict" and args["images"] is None and is_name and name != "--":
        args["images"], others = Path(name), []
    if others:
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    if args["command"] == "predict" and args["images"] is None and args["matches"] is None:
        parser.error("predict: expected an image, a folder or an archive, or --matches A B")
    for name in ("top", "batch_size"):
        if not 1 <= args.get(name, 1) <= MAX_COUNT:
            option = f"--{name.replace('_', '-')} {args[name]}"
            parser.error(f"{option}: expected a number from 1 to {MAX_COUNT}")
    module = importlib.import_module(f"densecl.predict.{args.pop('command')}")
    return cli.run_command(lambda: module.main(**args))


def run() -> None:
    """The console script."""
    cli.setup_process(stage=False)
    cli.exit_immediately(main())


if __name__ == "__main__":
    run()
