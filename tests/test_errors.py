"""Texts of errors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tunesmith import errors


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        (None, "pip install 'tunesmith[cli]'"),
        ({"url": "https://host/tunesmith.whl", "archive_info": {}}, "pip install 'tunesmith[cli]'"),
        ({"url": "file:///home/a/tunesmith", "dir_info": {}}, "pip install '/home/a/tunesmith[cli]'"),
        ({"url": "file:///a%20b", "dir_info": {"editable": True}}, "pip install -e '/a b[cli]'"),
    ],
)
def test_a_checkout_installs_its_extras_from_its_folder(
    origin: dict[str, Any] | None, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Distribution:
        def read_text(self, name: str) -> str | None:
            return None if origin is None or name != "direct_url.json" else json.dumps(origin)

    monkeypatch.setattr("importlib.metadata.distribution", lambda name: Distribution())
    errors._checkout.cache_clear()
    try:
        assert errors.install("cli") == command
    finally:
        errors._checkout.cache_clear()
