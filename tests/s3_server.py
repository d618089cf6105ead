"""A local S3 server for tests."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection

import fsspec
import pytest

KEYS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@contextmanager
def serve_s3(*buckets: str) -> Iterator[str]:
    """The address of an empty server with `buckets`, which the environment names until the end.

    All servers of a process share their buckets, and fsspec keeps the file system of an address
    that has gone: both are cleared before and after.
    """
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    store = fsspec.get_filesystem_class("s3")
    try:
        with closing(HTTPConnection(host, port)) as connection:
            connection.request("POST", "/moto-api/reset")
            connection.getresponse()
        store.clear_instance_cache()
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (KEYS | {"AWS_ENDPOINT_URL": address}).items():
                patch.setenv(name, value)
            for bucket in buckets:
                fsspec.filesystem("s3").mkdir(bucket)
            yield address
    finally:
        server.stop()
        store.clear_instance_cache()
