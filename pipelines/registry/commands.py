"""`python -m pipelines promote` and `rollback`: a person chooses the champion."""

import getpass
import sys

from densecl import paths
from densecl.config.params import load_params
from densecl.errors import DataError
from densecl.runtime.locks import hold_lock
from pipelines.registry import registry
from pipelines.registry.baseline import accept_next_baseline
from pipelines.registry.finish import finish_promotion
from pipelines.schemas import Anchor


def promote(version: str, why: str, who: str | None = None) -> None:
    """`python -m pipelines promote VERSION --why TEXT`: the version becomes champion and anchor."""
    settings = load_params(paths.PARAMS).retraining
    name = settings.registry
    # A retraining at work would judge against one champion and replace another.
    with hold_lock(paths.RETRAINING_LOCK):
        finish_promotion(name, settings.anchor)  # one that was killed
        _accept_baseline()
        before = registry.get_champion(name).version
        now = registry.promote_version(name, version, who or getpass.getuser(), why, by_hand=True)
        found = finish_promotion(name, settings.anchor)
        _accept_baseline()
        print(f"{name}: version {now} is champion; before: {before or 'none'}")
        _print_anchor(name, found)


def rollback(why: str, who: str | None = None) -> None:
    """`python -m pipelines rollback --why TEXT`."""
    settings = load_params(paths.PARAMS).retraining
    name = settings.registry
    with hold_lock(paths.RETRAINING_LOCK):
        finish_promotion(name, settings.anchor)  # one that was killed
        _accept_baseline()
        before = registry.get_champion(name).version
        now = registry.rollback_champion(name, who or getpass.getuser(), why)
        found = finish_promotion(name, settings.anchor)
        _accept_baseline()
        print(f"{name}: version {now} is champion again; rolled back: {before}")
        _print_anchor(name, found)


def _accept_baseline() -> None:
    """Before and after the alias moves: the proposal of a candidate that was judged counts while it
    is champion. The next retraining would drop it afterwards, and judge and promote the same
    candidate again. A damaged one must not keep anybody from a rollback.
    """
    try:
        accept_next_baseline()
    except DataError as error:
        print(f"warning: {error}", file=sys.stderr)


def _print_anchor(name: str, found: Anchor | None) -> None:
    if found:
        print(f"{name}: version {found.version} is the anchor, {found.origin}")
