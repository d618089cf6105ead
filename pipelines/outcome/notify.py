"""Notification of how a retraining ended, to a webhook and a file. Nothing here can fail a run:
what goes wrong is a line of warning.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from densecl.config.params import NotifyParams
from pipelines.schemas import GateVerdict, RetrainingRecord

TIMEOUT = 10.0  # s that a server may take to connect, and again to answer
MAX_TRIES = 3
RETRY_PAUSE = 1.0  # s before the second try, twice that before the third
RETRYABLE_STATUSES = {
    408,
    425,
    429,
    500,
    502,
    503,
    504,
}  # HTTP states that may be gone at the next try


class DeliveryError(Exception):
    """Delivery failed; the message never holds more of the address than its host: the rest is a
    secret.
    """


def notify_outcome(
    targets: NotifyParams, record: RetrainingRecord, verdict: GateVerdict | None
) -> None:
    """Tell webhook and file, where params name them."""
    body = format_message(record, verdict)
    for key, target, send in (
        ("webhook", targets.webhook, _post_webhook),
        ("file", targets.file, _append_line),
    ):
        if target is None:
            continue
        try:
            send(target, body)
        except Exception as error:  # whatever it is, the retraining itself has ended well
            reason = str(error) if isinstance(error, DeliveryError) else type(error).__name__
            print(
                f"warning: retraining.notify.{key}: {reason}; delivery failed",
                file=sys.stderr,
                flush=True,
            )


def format_message(record: RetrainingRecord, verdict: GateVerdict | None) -> dict[str, Any]:
    """The record's fields, and `text` as Slack shows it: a headline, the sentence, a line a
    criterion that was not met.
    """
    versions = [f"candidate version {record.version}"] if record.version else []
    versions += [f"champion version {record.champion}"] if record.champion else []
    lines = [
        f"Retraining: {record.outcome}" + (f" ({', '.join(versions)})" if versions else ""),
        record.said,
    ]
    lines += (
        [f"• {c.dataset}, {c.name}: {c.said}" for c in verdict.criteria if not c.passed]
        if verdict
        else []
    )
    lines += [f"git: {record.git}"] if record.git else []
    return record.model_dump() | {"text": _escape_slack("\n".join(lines))}


def _escape_slack(text: str) -> str:
    """Slack's own rule; else `<!channel>` in the name of a class would call everybody."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _post_webhook(target: str, body: dict[str, Any]) -> None:
    import requests

    address = _resolve_address(target)
    host = urlsplit(address).hostname
    for attempt in range(1, MAX_TRIES + 1):
        try:
            # A redirect would carry the message to a place that nobody named.
            with requests.post(
                address, json=body, timeout=TIMEOUT, allow_redirects=False, stream=True
            ) as response:
                status = response.status_code
            if 200 <= status < 300:
                return
            reason, is_transient = (
                f"{host} answered with status {status}",
                status in RETRYABLE_STATUSES,
            )
        except (requests.ConnectionError, requests.Timeout) as error:
            reason, is_transient = f"{host}: {type(error).__name__}", True
        except requests.RequestException as error:
            raise DeliveryError(f"{host}: {type(error).__name__}") from None
        if not is_transient or attempt == MAX_TRIES:
            raise DeliveryError(f"{reason} ({attempt} tries)" if is_transient else reason)
        time.sleep(RETRY_PAUSE * attempt)


def _resolve_address(target: str) -> str:
    if target.startswith("$"):
        name = target[1:]
        if not os.environ.get(name):
            raise DeliveryError(f"the environment variable {name} is not set")
        target = os.environ[name]
    try:
        parts = urlsplit(target)
        if parts.scheme in {"http", "https"} and parts.hostname:
            return target
    except ValueError:
        pass
    raise DeliveryError("the address is none: expected http:// or https:// and a host")


def _append_line(target: str, body: dict[str, Any]) -> None:
    path = Path(target)
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
        raise DeliveryError(f"{path}: {error.strerror}") from None
