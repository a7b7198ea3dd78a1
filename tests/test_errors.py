"""Texts of errors."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tunesmith
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


@given(st.text(max_size=60), st.integers(4, 60))
def test_a_long_text_is_cut_in_the_middle(text: str, most: int) -> None:
    short = errors.shortened(text, most)
    if len(text) <= most:
        assert short == text
    else:
        begin, cut, end = re.fullmatch(r"(?s)(.*) \[\.\.\. (\d+) characters \.\.\.\] (.*)", short).groups()  # type: ignore[union-attr]
        assert text.startswith(begin) and text.endswith(end)
        assert int(cut) == len(text) - len(begin) - len(end) == len(text) - most


@pytest.mark.parametrize("workers", [1, 2])
def test_a_huge_error_is_stored_and_said_in_short(workers: int, caplog: pytest.LogCaptureFixture) -> None:
    space = tunesmith.Space({"x": tunesmith.Float(0.0, 1.0)})
    with pytest.raises(tunesmith.TunesmithError) as error:
        tunesmith.tune(raises_a_book, space, minimise="loss", trials=2, workers=workers)
    study = error.value.study  # type: ignore[attr-defined]
    assert len(study.trials) == 2
    for trial in study.trials:
        assert len(trial.error) < 6100
        assert "ValueError: begin" in trial.error and trial.error.endswith("end") and "characters ...]" in trial.error
    assert len(str(error.value)) < 6300
    assert all(len(record.getMessage()) < 6300 for record in caplog.records)


def test_a_huge_error_of_a_loop_of_ones_own() -> None:
    study = tunesmith.Study(tunesmith.Space({"x": tunesmith.Float(0.0, 1.0)}), tunesmith.Goal("loss"))
    study.fail(study.ask(), ValueError("begin" + 3_000_000 * "\udcff" + "end"))  # type: ignore[arg-type]
    assert study.trials[0].error.startswith("ValueError: begin") and study.trials[0].error.endswith("end")
    assert len(study.trials[0].error) < 6100


def raises_a_book(config: Any) -> float:
    raise ValueError("begin " + 300_000 * "some words " + "end")
