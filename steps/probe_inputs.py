"""Files of the user's that decide the result of a probe: the weights of `occlusion.reference` and
the photographs of `corruptions.frost`.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

from densecl import paths
from densecl.config.probe_params import ProbeParams, ProbesParams
from densecl.errors import DenseclError
from densecl.runtime.links import replace_link


def check_probe_inputs(probes: ProbesParams) -> None:
    """Raise DenseclError if a file is missing, or is one that this project trains, or if the
    weights of a reference tell nothing.
    """
    for name, params, file in iter_inputs(probes):
        key = f"evaluate.probes.{name}.{params.input_key}"
        if file.parent.resolve().is_relative_to(paths.MODELS.resolve()):
            raise DenseclError(
                f"{key}: found {file.parent}, which this project trains, so that it changes while "
                f"models are evaluated; expected a folder outside {paths.MODELS}/: copy it"
            )
        if not file.is_file():
            names = ", ".join(Path(path).name for path in params.input_files)
            raise DenseclError(
                f"{key}: found no {file.name} in {file.parent}; expected a folder with {names}"
            )
    if probes.occlusion and probes.occlusion.reference:
        # Imported here: without a reference, `plan` needs no torch for it.
        from densecl.evaluation.other_sources import check_reference
        from densecl.network.create import ModelError

        try:
            check_reference(Path(probes.occlusion.reference))
        except ModelError as error:
            raise DenseclError(f"evaluate.probes.occlusion.reference: {error}") from None


def link_probe_inputs(probes: ProbesParams) -> None:
    """Make data/probe-inputs what the evaluation depends on: links to the files, by probe, which
    DVC hashes.
    """
    shutil.rmtree(paths.PROBE_INPUTS, ignore_errors=True)
    paths.PROBE_INPUTS.mkdir(parents=True)
    for name, _, file in iter_inputs(probes):
        replace_link(paths.PROBE_INPUTS / name / file.name, file)


def iter_inputs(probes: ProbesParams) -> Iterator[tuple[str, ProbeParams, Path]]:
    """Each file, with its probe and the params that name it."""
    for name in probes.names:
        params: ProbeParams = getattr(probes, name)
        for file in params.input_files:
            yield name, params, Path(file)
