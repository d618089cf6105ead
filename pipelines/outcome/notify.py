"""Notify a webhook and a file of the outcome of a retraining. A failed delivery is a warning and
never fails a run.
"""

import json
import logging
import os
import sys
import threading
from pathlib import Path
from typing import Any

from densecl.config.params import NotifyParams
from densecl.errors import DenseclError
from pipelines.schemas import GateVerdict, RetrainingRecord

TIMEOUT = 10.0  # s to connect, and again to respond
RETRIES = 2  # after the first try
RETRY_PAUSE = 1.0  # s; urllib3 retries at once, then after twice this
DELIVERY_TIMEOUT = 65.0  # s for all tries: TIMEOUT starts anew with each byte of a response
RETRYABLE_STATUSES = (408, 425, 429, 500, 502, 503, 504)  # a retry may succeed


def notify_outcome(
    targets: NotifyParams, record: RetrainingRecord, verdict: GateVerdict | None
) -> None:
    """Notify the webhook and the file that params name."""
    body = format_message(record, verdict)
    for key, target, send in (
        ("webhook", targets.webhook, _post_webhook),
        ("file", targets.file, _append_line),
    ):
        try:
            if target is not None:
                send(target, body)
        except Exception as error:  # of any kind: the retraining itself has succeeded
            # Not the text of other errors: it holds the address, which is a secret.
            reason = str(error) if isinstance(error, DenseclError) else type(error).__name__
            print(
                f"warning: retraining.notify.{key}: {reason}; delivery failed",
                file=sys.stderr,
                flush=True,
            )


def format_message(record: RetrainingRecord, verdict: GateVerdict | None) -> dict[str, Any]:
    """The record's fields, and `text` for Slack: a headline, the summary, and one line per failed
    criterion.
    """
    numbers = {"candidate": record.version, "champion": record.champion}
    versions = ", ".join(f"{name} version {number}" for name, number in numbers.items() if number)
    lines = [f"Retraining: {record.outcome}" + (f" ({versions})" if versions else ""), record.said]
    if verdict is not None:
        lines += [
            f"• {verdict.titles.get(c.dataset, c.dataset)}, {c.name}: {c.said}"
            for c in verdict.criteria
            if not c.passed
        ]
    if record.git:
        lines.append(f"git: {record.git}")
    text = "\n".join(lines)
    # Slack's own rule; else `<!channel>` in the name of a class would call everybody.
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return record.model_dump() | {"text": escaped}


def _post_webhook(target: str, body: dict[str, Any]) -> None:
    """Post in a thread that is left behind when DELIVERY_TIMEOUT is over."""
    errors: list[Exception] = []

    def post() -> None:
        try:
            _post_message(target, body)
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=post, daemon=True)
    thread.start()
    thread.join(DELIVERY_TIMEOUT)
    if thread.is_alive():
        raise DenseclError(f"the server did not respond within {DELIVERY_TIMEOUT:g} s")
    if errors:
        raise errors[0]


def _post_message(target: str, body: dict[str, Any]) -> None:
    import requests
    from urllib3 import Retry

    address = os.environ.get(target[1:], "") if target.startswith("$") else target
    if not address.startswith(("http://", "https://")):
        name = f"the variable {target}" if target.startswith("$") else "params.yaml"
        raise DenseclError(f"found no http:// or https:// address in {name}; set one")
    # urllib3 logs each retry with the whole address.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    retry = Retry(
        RETRIES,
        allowed_methods=None,  # POST too
        status_forcelist=RETRYABLE_STATUSES,
        raise_on_status=False,
        backoff_factor=RETRY_PAUSE,
        respect_retry_after_header=False,  # the retraining does not wait for hours
    )
    with requests.Session() as session:
        for scheme in ("http://", "https://"):
            session.mount(scheme, requests.adapters.HTTPAdapter(max_retries=retry))
        # A redirect would send the message to an address that is not in params.
        with session.post(
            address, json=body, timeout=TIMEOUT, allow_redirects=False, stream=True
        ) as response:
            if not 200 <= response.status_code < 300:
                raise DenseclError(f"the server answered with status {response.status_code}")


def _append_line(target: str, body: dict[str, Any]) -> None:
    path, line = Path(target), f"{json.dumps(body, ensure_ascii=False)}\n".encode()
    # Not blocking: a pipe that nobody reads is an error, and does not hang.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, flags, 0o666)
        try:
            if os.write(file, line) < len(line):
                raise DenseclError(f"{path}: took a part of the line only")
        finally:
            os.close(file)
    except OSError as error:
        raise DenseclError(f"{path}: {error.strerror}") from None
