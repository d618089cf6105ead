"""The champion behind MLflow's own commands: over HTTP on this machine, and on a file."""

import base64
import io
import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import requests
from PIL import Image

from pipelines.registry import registry
from tests.pipelines.conftest import verdict

NAME = "densecl-vit"
CHAMPION = f"models:/{NAME}@champion"

pytestmark = pytest.mark.slow


@pytest.fixture
def encoded(trained) -> list[bytes]:
    """Images as files, with a champion in the registry."""
    registry.register_model(NAME, trained("first"), verdict(), {})
    registry.promote_version(NAME, "1", "ann", "the gate")
    images = []
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        images.append(file.getvalue())
    return images


def as_request(encoded: list[bytes]) -> bytes:
    rows = [[base64.b64encode(content).decode()] for content in encoded]
    return json.dumps({"dataframe_split": {"columns": ["image"], "data": rows}}).encode()


def post(port: int, body: bytes) -> list[dict]:
    headers = {"Content-Type": "application/json"}
    response = requests.post(
        f"http://127.0.0.1:{port}/invocations", data=body, headers=headers, timeout=60
    )
    response.raise_for_status()
    return response.json()["predictions"]


def wait_for(port: int, server: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if requests.get(f"http://127.0.0.1:{port}/ping", timeout=5).ok:
                return
        except requests.RequestException:
            time.sleep(0.3)
    raise AssertionError(f"no answer; status {server.poll()}")


def test_serve_and_predict_answer_as_python_does(encoded, project):
    expected = mlflow.pyfunc.load_model(CHAMPION).predict(pd.DataFrame({"image": encoded}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models"]
    where = ["-m", CHAMPION, "--env-manager", "local"]
    serve = [*command, "serve", *where, "--host", "127.0.0.1", "-p", str(port)]
    with Path("serve.log").open("w") as log:
        server = subprocess.Popen(serve, stdout=log, stderr=log, start_new_session=True)
        try:
            wait_for(port, server)
            answers = post(port, as_request(encoded))
        finally:
            server.terminate()
            server.wait(30)
    assert [row["wnid"] for row in answers] == expected["wnid"].tolist()
    assert [row["probability"] for row in answers] == pytest.approx(
        expected["probability"].tolist(), abs=1e-6
    )
    Path("images.json").write_bytes(as_request(encoded))
    files = ["-i", "images.json", "-t", "json", "-o", "answers.json"]
    subprocess.run([*command, "predict", *where, *files], check=True, capture_output=True)
    assert json.loads(Path("answers.json").read_text())["predictions"] == answers
