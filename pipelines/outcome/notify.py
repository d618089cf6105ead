"""How a retraining ended, told to a webhook and to a file. Nothing here can fail a run: what goes
wrong is a line of warning.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from densecl.config.params import Notify
from pipelines.schemas import Finished, Verdict

TIMEOUT = 10.0  # s that a server may take to connect, and again to answer
TRIES = 3
PAUSE = 1.0  # s before the second try, twice that before the third
PASSING = {408, 425, 429, 500, 502, 503, 504}  # HTTP states that may be gone at the next try


class Untold(Exception):
    """Nobody was told; the message never holds more of the address than its host: the rest is a
    secret.
    """


def notify(where: Notify, finished: Finished, verdict: Verdict | None) -> None:
    """Tell webhook and file, where params name them."""
    body = message(finished, verdict)
    for key, place, tell in (("webhook", where.webhook, _post), ("file", where.file, _append)):
        if place is None:
            continue
        try:
            tell(place, body)
        except Exception as error:  # whatever it is, the retraining itself has ended well
            why = str(error) if isinstance(error, Untold) else type(error).__name__
            print(
                f"warning: retraining.notify.{key}: {why}; nobody was told there",
                file=sys.stderr,
                flush=True,
            )


def message(finished: Finished, verdict: Verdict | None) -> dict[str, Any]:
    """The record's fields, and `text` as Slack shows it: a headline, the sentence, a line a
    criterion that was not met.
    """
    versions = [f"candidate version {finished.version}"] if finished.version else []
    versions += [f"champion version {finished.champion}"] if finished.champion else []
    lines = [
        f"Retraining: {finished.outcome}" + (f" ({', '.join(versions)})" if versions else ""),
        finished.said,
    ]
    lines += (
        [f"• {c.dataset}, {c.name}: {c.said}" for c in verdict.criteria if not c.passed]
        if verdict
        else []
    )
    lines += [f"git: {finished.git}"] if finished.git else []
    return finished.model_dump() | {"text": _escaped("\n".join(lines))}


def _escaped(text: str) -> str:
    """Slack's own rule; else `<!channel>` in the name of a class would call everybody."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _post(place: str, body: dict[str, Any]) -> None:
    import requests

    address = _address(place)
    host = urlsplit(address).hostname
    for tried in range(1, TRIES + 1):
        try:
            # A redirect would carry the message to a place that nobody named.
            with requests.post(
                address, json=body, timeout=TIMEOUT, allow_redirects=False, stream=True
            ) as response:
                status = response.status_code
            if 200 <= status < 300:
                return
            why, passing = f"{host} answered with status {status}", status in PASSING
        except (requests.ConnectionError, requests.Timeout) as error:
            why, passing = f"{host}: {type(error).__name__}", True
        except requests.RequestException as error:
            raise Untold(f"{host}: {type(error).__name__}") from None
        if not passing or tried == TRIES:
            raise Untold(f"{why} ({tried} tries)" if passing else why)
        time.sleep(PAUSE * tried)


def _address(place: str) -> str:
    if place.startswith("$"):
        name = place[1:]
        if not os.environ.get(name):
            raise Untold(f"the environment variable {name} is not set")
        place = os.environ[name]
    try:
        parts = urlsplit(place)
        if parts.scheme in {"http", "https"} and parts.hostname:
            return place
    except ValueError:
        pass
    raise Untold("the address is none: expected http:// or https:// and a host")


def _append(place: str, body: dict[str, Any]) -> None:
    path = Path(place)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(
                handle, json.dumps(body, ensure_ascii=False).encode() + b"\n"
            )  # one call: never half a line
        finally:
            os.close(handle)
    except OSError as error:
        raise Untold(f"{path}: {error.strerror}") from None
