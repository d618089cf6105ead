"""What is told where DVC cannot open the project."""

from __future__ import annotations

import pytest

from densecl.errors import DenseclError
from pipelines.graph import Graph


def test_without_dvc_or_git_it_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DenseclError, match=r"found no \.dvc folder, expected the project's root"):
        Graph()
    (tmp_path / ".dvc").mkdir()
    with pytest.raises(DenseclError, match=r"is not a git repository, which DVC expects: .*core\.no_scm"):
        Graph()
