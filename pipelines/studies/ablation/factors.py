"""A file of one-factor variants, and params that have them."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from densecl.config.base import StrictModel
from densecl.config.error_messages import format_errors
from densecl.config.mode_params import ModeSettings, VariantParams
from densecl.config.params import Params, ParamsError, load_params, parse_params
from densecl.config.yaml_loader import load_yaml


class AblationFile(StrictModel):
    """Variants by factor; those of one factor differ from their base in the same keys."""

    factors: dict[str, dict[str, VariantParams]] = Field(min_length=1)


class Ablation(NamedTuple):
    """What a file asks for, given the params."""

    factors: dict[str, tuple[str, ...]]  # factor -> names of its variants that run
    equal: Mapping[str, str]  # variant -> its base, whose values it has already: it is the base
    without_base: tuple[str, ...]  # variants whose base is not in modes
    contradicted: Mapping[str, str]  # variant -> why it cannot be, given the params' other values
    text: str  # of params.yaml with all variants that run

    def list_absent(self) -> list[str]:
        """A sentence per variant that does not run."""
        return [
            *(
                f"{n} has the values of {base}, which represents it."
                for n, base in self.equal.items()
            ),
            *(f"{name}: its base is not in modes." for name in self.without_base),
            *(f"{name}: {reason}." for name, reason in self.contradicted.items()),
        ]


def read_ablation_file(path: Path) -> AblationFile:
    """Raises ParamsError with one line per problem."""
    try:
        values = load_yaml(path.read_text(encoding="utf-8"))
        return AblationFile.model_validate(values)
    except FileNotFoundError:
        raise ParamsError(f"{path}: no such file; expected variants by factor") from None
    except ValidationError as error:
        lines = (f"{path}: {line}" for line in format_errors(error, AblationFile))
        raise ParamsError("\n".join(lines)) from None
    except ValueError as error:
        raise ParamsError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None


def plan_ablation(file: Path, params_file: Path) -> Ablation:
    """What runs: all variants but those that are their base, have none in `modes`, or contradict
    other values of the params, as tuned ones. Raises ParamsError if the params with them cannot be
    used.
    """
    params, factors = load_params(params_file), read_ablation_file(file).factors
    variants = {name: v for group in factors.values() for name, v in group.items()}
    listed = [name for group in factors.values() for name in group]
    if repeated := sorted({name for name in listed if listed.count(name) > 1}):
        raise ParamsError(f"{file}: {repeated[0]} is in two factors; name one of them differently")
    for name, variant in variants.items():
        if params.variants.get(name, variant) != variant:
            raise ParamsError(
                f"{file}: {name} is another variant in {params_file}; rename one of them"
            )
    based = {name: v for name, v in variants.items() if v.base in params.modes}
    equal = {name: v.base for name, v in based.items() if _is_base(params, name, v)}
    contradicted = {
        name: reason
        for name, variant in based.items()
        if name not in equal and (reason := _explain_contradiction(params, name, variant))
    }
    running = {n: v for n, v in based.items() if n not in equal and n not in contradicted}
    text = _add_variants(params_file.read_text(encoding="utf-8"), running)
    parse_params(load_yaml(text), f"{params_file} with {file}")
    return Ablation(
        {
            factor: tuple(name for name in group if name in running)
            for factor, group in factors.items()
            if any(name in running for name in group)
        },
        equal,
        tuple(name for name in variants if name not in based),
        contradicted,
        text,
    )


def _is_base(params: Params, name: str, variant: VariantParams) -> bool:
    """Whether a variant changes nothing: the params have its values for the base already."""
    settings = ModeSettings(contrast=params.contrast, train=params.train, variants={name: variant})
    try:
        return settings.resolve_contrast(name) == settings.resolve_contrast(
            variant.base
        ) and settings.resolve_train(name) == settings.resolve_train(variant.base)
    except ValidationError:
        return False  # the check of the whole names the key


def _explain_contradiction(params: Params, name: str, variant: VariantParams) -> str:
    """Why a variant that is right by itself, thus with the defaults, cannot be with these params;
    "" if it can, or is wrong.
    """
    try:
        ModeSettings(variants={name: variant}).check()
    except ValueError:
        return ""  # the check of the whole names the key
    try:
        ModeSettings(contrast=params.contrast, train=params.train, variants={name: variant}).check()
    except ValueError as error:
        return str(error).removeprefix(f"variants.{name}.")
    return ""


def _add_variants(text: str, variants: dict[str, VariantParams]) -> str:
    """The params with these variants in `variants` and `modes`; comments stay."""
    yaml = YAML()
    yaml.width = 100
    params: Any = yaml.load(text)
    modes = CommentedSeq([*params["modes"], *(n for n in variants if n not in params["modes"])])
    modes.fa.set_flow_style()
    params["modes"] = modes
    section = params.setdefault("variants", CommentedMap())
    for name, variant in variants.items():
        if name not in section:
            values = variant.model_dump(mode="json", exclude_unset=True)
            section[name] = CommentedMap(values)
            section[name].fa.set_flow_style()
    written = io.StringIO()
    yaml.dump(params, written)
    return written.getvalue()
