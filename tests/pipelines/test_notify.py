"""Who is told how a retraining ended, and that nothing about telling can fail it."""

import contextlib
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from densecl.config.params import NotifyParams
from pipelines.outcome import notify as room
from pipelines.outcome.notify import notify_outcome
from pipelines.schemas import Criterion, GateVerdict, RetrainingRecord

NO_ADDRESS = "found no http:// or https:// address in {}; set one"
SECRET = "T0/B0/s3cr3t"  # noqa: S105
FINISHED = RetrainingRecord(
    started="2026-01-05T03:00:00+01:00",
    seconds=12.5,
    outcome="rejected",
    said="sketch fell by 4.1 points",
    version="4",
    champion="3",
    git="retraining/20260105T020012Z-rejected",
)
VERDICT = GateVerdict(
    promoted=False,
    champion="3",
    mode="dense",
    seed=0,
    said="sketch fell by 4.1 points",
    criteria=(
        Criterion(
            name="val",
            dataset="imagenet",
            value=0.0,
            low=-0.005,
            high=0.01,
            bound=-0.01,
            images=400,
            passed=True,
            said="held",
        ),
        Criterion(
            name="fall",
            dataset="sketch",
            value=-0.041,
            low=-0.06,
            high=-0.02,
            bound=-0.02,
            images=400,
            passed=False,
            said="-4.1 & <!channel>",
        ),
    ),
)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[int] = []
        self.bodies: list[dict] = []
        self.slow = 0.0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/services/{SECRET}"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert self.headers["Content-Type"] == "application/json"
        self.server.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        time.sleep(self.server.slow)
        self.send_response(self.server.answers.pop(0) if self.server.answers else 200)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(room, "RETRY_PAUSE", 0.01)
    monkeypatch.setattr(room, "TIMEOUT", 0.3)
    made = Server()
    threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def test_the_webhook_gets_the_record_and_a_text_for_slack(server, capfd):
    notify_outcome(NotifyParams(webhook=server.address), FINISHED, VERDICT)
    assert server.bodies == [
        FINISHED.model_dump()
        | {
            "text": (
                "Retraining: rejected (candidate version 4, champion version 3)\nsketch fell by 4.1 points\n"
                "• sketch, fall: -4.1 &amp; &lt;!channel&gt;\ngit: retraining/20260105T020012Z-rejected"
            )
        }
    ]
    assert capfd.readouterr().err == ""


def test_the_address_can_be_read_from_the_environment(server, monkeypatch):
    monkeypatch.setenv("HOOK", server.address)
    notify_outcome(NotifyParams(webhook="$HOOK"), FINISHED, None)
    assert [b["outcome"] for b in server.bodies] == ["rejected"]


@pytest.mark.parametrize(
    ("answers", "calls", "told"),
    [
        ([500, 429, 200], 3, ""),
        ([500, 500, 500], 3, "the server answered with status 500"),
        ([404], 1, "the server answered with status 404"),
        ([302], 1, "the server answered with status 302"),
    ],
)
def test_what_may_pass_is_tried_again_and_nothing_is_redirected(
    server, capfd, answers, calls, told
):
    server.answers = list(answers)
    notify_outcome(NotifyParams(webhook=server.address), FINISHED, None)
    assert len(server.bodies) == calls
    said = capfd.readouterr().err
    assert said == (
        f"warning: retraining.notify.webhook: {told}; delivery failed\n" if told else ""
    )


def test_a_server_that_hangs_is_given_up(server, capfd, caplog):
    caplog.set_level(logging.INFO)
    server.slow = 1.0
    begun = time.monotonic()
    notify_outcome(NotifyParams(webhook=server.address), FINISHED, None)
    assert time.monotonic() - begun < 3
    told = capfd.readouterr().err
    assert told == "warning: retraining.notify.webhook: ConnectionError; delivery failed\n"
    assert SECRET not in caplog.text


def test_a_server_that_drips_its_headers_is_given_up(capfd, monkeypatch):
    monkeypatch.setattr(room, "DELIVERY_TIMEOUT", 0.5)
    ended = threading.Event()

    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            while not ended.wait(0.05):
                connection.sendall(b"X-Drip: 1\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        begun = time.monotonic()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/{SECRET}"
        notify_outcome(NotifyParams(webhook=address), FINISHED, None)
        duration = time.monotonic() - begun
        ended.set()
        thread.join()
    assert duration < 5
    said = capfd.readouterr().err
    assert "webhook: the server did not respond within 0.5 s; delivery failed" in said


def test_a_pipe_or_a_full_device_as_file_is_a_warning(tmp_path, capfd):
    """Nobody reads the first pipe, the second is read, and the device refuses."""
    for name in ("unread", "read"):
        os.mkfifo(tmp_path / name)
    notify_outcome(NotifyParams(file=str(tmp_path / "unread")), FINISHED, None)
    assert "unread: No such device or address; delivery failed" in capfd.readouterr().err
    reader = os.open(tmp_path / "read", os.O_RDONLY | os.O_NONBLOCK)
    notify_outcome(NotifyParams(file=str(tmp_path / "read")), FINISHED, None)
    assert json.loads(os.read(reader, 10_000))["outcome"] == "rejected"
    os.close(reader)
    assert capfd.readouterr().err == ""
    if Path("/dev/full").exists():
        notify_outcome(NotifyParams(file="/dev/full"), FINISHED, None)
        assert "/dev/full: No space left on device" in capfd.readouterr().err


def test_a_server_that_is_not_there_and_addresses_that_are_none(server, capfd, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setenv("NOT_AN_ADDRESS", f"file:///{SECRET}")
    monkeypatch.delenv("NO_SUCH_HOOK", raising=False)
    for address, told in (
        (f"http://user:word@127.0.0.1:{port}/{SECRET}", "ConnectionError"),
        (f"http://127.0.0.1:port/{SECRET}", "InvalidURL"),
        ("$NO_SUCH_HOOK", NO_ADDRESS.format("the variable $NO_SUCH_HOOK")),
        ("$NOT_AN_ADDRESS", NO_ADDRESS.format("the variable $NOT_AN_ADDRESS")),
        (f"hooks.example.com/{SECRET}", NO_ADDRESS.format("params.yaml")),
        (f"http://[{SECRET}", "InvalidURL"),
    ):
        notify_outcome(NotifyParams(webhook=address), FINISHED, None)
        assert (
            capfd.readouterr().err
            == f"warning: retraining.notify.webhook: {told}; delivery failed\n"
        )
    assert SECRET not in caplog.text


def test_the_file_gets_a_line_a_retraining(tmp_path, capfd):
    path = tmp_path / "new" / "told.jsonl"
    notify_outcome(NotifyParams(file=str(path)), FINISHED, VERDICT)
    notify_outcome(
        NotifyParams(file=str(path)), FINISHED.model_copy(update={"outcome": "promoted"}), None
    )
    assert [json.loads(line)["outcome"] for line in path.read_text().splitlines()] == [
        "rejected",
        "promoted",
    ]
    notify_outcome(NotifyParams(file=str(tmp_path)), FINISHED, None)
    assert "Is a directory; delivery failed" in capfd.readouterr().err


def test_a_failed_delivery_does_not_prevent_the_other(tmp_path, capfd):
    path = tmp_path / "told.jsonl"
    notify_outcome(NotifyParams(webhook="ftp://127.0.0.1/", file=str(path)), FINISHED, None)
    assert len(path.read_text().splitlines()) == 1
    assert capfd.readouterr().err.count("\n") == 1
