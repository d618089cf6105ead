"""The stack of champions: the registered model's tag `champions`, the oldest version first.

`promote` puts a version on top, `rollback` takes one off. BY_HAND follows the versions that a
person promoted: the newest of them, or else the first champion, is the anchor.
"""

from datetime import datetime
from typing import Any

from pipelines.registry import mlflow_client
from pipelines.registry.mlflow_client import CHAMPION

CHAMPIONS_TAG = "champions"
BY_HAND = "*"


def format_entry(version: Any, by_hand: bool) -> str:
    return f"{version.version}{BY_HAND if by_hand else ''}"


def get_number(entry: str) -> str:
    """Version of an entry of the stack."""
    return entry.removesuffix(BY_HAND)


def list_champions(client: Any, name: str, current: Any) -> list[str]:
    """Entries up to the current champion, oldest first.

    The alias decides. Entries after it were left by an interrupted promotion or rollback; an alias
    that was moved by hand, in MLflow's interface, adds one champion.
    """
    entries = (client.get_registered_model(name).tags.get(CHAMPIONS_TAG) or "").split()
    if current is None:
        return entries
    number = str(current.version)
    numbers = [get_number(entry) for entry in entries]
    if number not in numbers:
        return [*entries, format_entry(current, by_hand=True)]
    return entries[: len(entries) - numbers[::-1].index(number)]


def find_anchor(entries: list[str]) -> tuple[str, bool]:
    """Version of the anchor, and whether a person promoted it."""
    by_hand = [entry for entry in entries if entry.endswith(BY_HAND)]
    return get_number((by_hand or entries[:1])[-1]), bool(by_hand)


def make_champion(client: Any, version: Any, entries: list[str], who: str, why: str) -> None:
    """Make the version of the last entry champion; RegistryError if its files are corrupt. The
    alias moves last, so that a kill leaves the old champion.
    """
    with mlflow_client.fetch_verified_files(client, version):
        record_action(client, version, "promoted", who, why)
    client.set_registered_model_tag(version.name, CHAMPIONS_TAG, " ".join(entries))
    client.set_registered_model_alias(version.name, CHAMPION, version.version)


def record_action(client: Any, version: Any, action: str, who: str, why: str) -> None:
    """Tags of the newest promotion or rollback, and one line each in the tag `history`."""
    when = datetime.now().astimezone().isoformat(timespec="seconds")
    line = f"{when} {action.replace('_', ' ')} by {who}: {' '.join(why.split())}"
    tags = {
        f"{action}_by": who,
        f"{action}_why": why,
        f"{action}_at": when,
        "history": "\n".join(filter(None, [version.tags.get("history"), line])),
    }
    for key, value in tags.items():
        client.set_model_version_tag(version.name, version.version, key, value)
