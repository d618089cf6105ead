"""List an entry of `transfer`: one row per image with its class, mask and boxes."""

from densecl import paths
from densecl.artifacts import TransferPlan, read_json
from densecl.datasets.manifests.transfer_listing import list_transfer
from densecl.datasets.manifests.transfer_scan import scan_transfer
from densecl.datasets.storage.decode import HARMLESS_PROBLEMS
from densecl.datasets.storage.manifest import count_problems
from densecl.datasets.storage.skipped_files import describe_skipped
from densecl.datasets.storage.transfer import write_missing_transfer, write_transfer
from densecl.errors import DataError
from densecl.runtime.hardware import count_workers
from densecl.runtime.progress import write_progress


def main(name: str) -> None:
    """Write data/transfer/<name>.parquet; for a missing optional entry, no rows and the reason."""
    plan, path = (
        read_json(TransferPlan, paths.plan_file(f"transfer/{name}")),
        paths.transfer_file(name),
    )
    try:
        listing = list_transfer(plan.images)
        workers = max(1, count_workers())
        frame = scan_transfer(name, plan.images, listing, workers, write_progress)
    except DataError as error:
        if not plan.optional:
            raise
        write_missing_transfer(path, str(error))
        print(f"{name}: skipped: {error}")
        return
    write_transfer(frame, listing.skipped, listing.notes, path)
    masks, boxes = (frame["mask"] != "").sum(), (frame["boxes"] != "[]").sum()
    parts = [f"{len(frame)} images in {plan.images.root}, {masks} with masks, {boxes} with boxes"]
    if listing.skipped:
        parts.append(f"skipped {describe_skipped(listing.skipped)}")
    is_used = frame["problem"].isin(HARMLESS_PROBLEMS)
    if problems := count_problems(frame[~is_used]):
        parts.append(f"with a problem {describe_skipped(problems)}")
    if conversions := count_problems(frame[is_used]):
        parts.append(f"used after a conversion {describe_skipped(conversions)}")
    print("; ".join([*parts, *listing.notes]))
