"""Whether entries of `transfer` can serve the probes that name them, as far as params tell: the
probes run after all trainings.
"""

from collections.abc import Mapping

from densecl.config.probe_params import (
    FrozenFeatureParams,
    ProbeParams,
    ProbesParams,
    TransferParams,
)


def check_entries(probes: ProbesParams, transfer: Mapping[str, TransferParams]) -> None:
    """ValueError that names the key; all entries that probes name are in `transfer`."""
    for name in probes.names:
        params: ProbeParams = getattr(probes, name)
        for key, entry in params.masked_entries.items():
            _check_masks(f"evaluate.probes.{name}.{key}", entry, transfer[entry], params)
        if isinstance(params, FrozenFeatureParams):
            _check_classes(f"evaluate.probes.{name}.sets", params, transfer)
    if probes.segmentation:
        _check_pair(probes.segmentation.fit, probes.segmentation.test, transfer)


def _check_masks(key: str, entry: str, images: TransferParams, params: ProbeParams) -> None:
    takes_boxes = params.takes_boxes
    found = images.masks or (images.boxes if takes_boxes else None)
    if images.layout == "folders" and found is None:
        expected, advice = "masks", f"transfer.{entry}.masks and mask_values"
        if takes_boxes:
            expected, advice = "masks or boxes", f"{advice}, or boxes"
        raise ValueError(
            f"{key}: transfer.{entry} has no {expected}, expected an entry that has; set {advice}"
        )
    if takes_boxes and images.layout == "ade20k":
        raise ValueError(
            f"{key}: the masks of transfer.{entry}, of layout ade20k, show all of a scene, walls "
            "and sky included; expected an entry with masks of objects or with boxes"
        )


def _check_classes(
    key: str, params: FrozenFeatureParams, transfer: Mapping[str, TransferParams]
) -> None:
    for entry in params.transfer_names:
        if transfer[entry].layout != "folders":
            raise ValueError(
                f"{key}: transfer.{entry} has the layout {transfer[entry].layout}, expected "
                "folders, by which classes are known"
            )


def _check_pair(fit: str, test: str, transfer: Mapping[str, TransferParams]) -> None:
    key = "evaluate.probes.segmentation"
    if fit == test:
        raise ValueError(
            f"{key}: found {fit} as fit and as test, expected two entries of transfer: images that "
            "a layer was fitted on say nothing about others"
        )
    kinds = [(transfer[name].layout, transfer[name].mask_values) for name in (fit, test)]
    if kinds[0] != kinds[1]:
        raise ValueError(
            f"{key}: the masks of transfer.{fit} and transfer.{test} are of different kinds, "
            "expected the same layout and mask_values of both"
        )
