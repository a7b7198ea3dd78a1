"""What a stranger's study may do to the screen: be seen."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tunesmith as ts
from tunesmith.cli import output
from tunesmith.cli.errors import one_line
from tunesmith.errors import TunesmithError, clean, printable

#: clears the screen, rings, writes from right to left, hides, ends the line early, is no text
HOSTILE = "\x1b[2J\x07\u202eevil\u2066\x9b31m\x7f\u200b\r\u2028\udcff"
texts = st.text(st.characters()) | st.text(st.sampled_from([*HOSTILE, "a", " ", "\n", "\t", '"', "\\", "=", "😀"]))


def harmless(text: str) -> bool:
    return all(one.isprintable() or one in "\n\t" for one in text)


@settings(deadline=None)
@given(text=texts)
def test_text_is_printable(text: str) -> None:
    shown = printable(text)
    assert harmless(shown)
    assert printable(shown) == shown
    assert shown == text or not harmless(text)
    if '"' not in text and "\\" not in text and "\n" not in text and "\t" not in text:
        assert json.loads(f'"{shown}"') == text


@settings(deadline=None)
@given(text=texts)
def test_text_is_clean(text: str) -> None:
    clean(text).encode()
    try:
        text.encode()
    except UnicodeEncodeError:
        assert clean(text) != text
    else:
        assert clean(text) == text


@settings(deadline=None)
@given(rows=st.lists(st.fixed_dictionaries({"a": texts, HOSTILE: texts | st.floats() | st.none()}), min_size=1))
def test_everything_that_is_written_is_printable(rows: list[dict[str, Any]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        written = io.StringIO()
        patch.setattr("sys.stdout", written)
        output.table(rows)
        for row in rows:
            output.pairs(row)
            output.line(str(row["a"]))
            output.line(output.text(row))
        output.as_json(rows)
        written.write(output.as_csv(rows))
    assert harmless(written.getvalue())
    written.getvalue().encode()


@settings(deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_json_says_the_same(text: str) -> None:
    assert json.loads(output.encode({text: [text]})) == {text: [text]}


def test_columns_stay_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    output.table([{"name": "\x1b[31m", "n": 1}, {"name": "b", "n": 22}])
    assert capsys.readouterr().out.splitlines() == ["name         n", "\\u001b[31m   1", "b           22"]
    output.pairs({"\x07": 1, "bb": 2})
    assert capsys.readouterr().out.splitlines() == ["\\u0007  1", "bb      2"]


def test_no_cell_is_a_formula() -> None:
    texts = ["=cmd|' /C calc'!A0", "+1+1", "-1+1", "@SUM(A1)", "\tx", "\r=1", "\uff1d1", "-1e-3", "+2", "a=b", ""]
    rows = list(csv.reader(io.StringIO(output.as_csv([{"=name": text, "value": -0.5} for text in texts]))))
    assert rows[0] == ["'=name", "value"]
    assert [row[0] for row in rows[1:]] == [
        "'=cmd|' /C calc'!A0", "'+1+1", "'-1+1", "'@SUM(A1)", "'\tx", "'\\u000d=1", "'\uff1d1", "-1e-3", "+2", "a=b",
        "",
    ]  # fmt: skip
    assert {row[1] for row in rows[1:]} == {"-0.5"}
    assert output.as_csv([]) == "\n"


def test_errors_are_printable() -> None:
    assert harmless(one_line(TunesmithError(HOSTILE))) and harmless(one_line(FileNotFoundError(2, HOSTILE, HOSTILE)))


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A study in which every text is a stranger's."""
    text = clean(HOSTILE)
    space = ts.Space({f"={text}": ts.Categorical([text, f"={text}"]), "lr": ts.Float(0, 1)})
    path = tmp_path / "hostile.db"
    goals, constraint = [ts.Goal(f"loss{text}")], ts.Constraint(f"cost{text}", 5.0)
    with ts.Study(space, goals, store=path, name=f"study{text}", constraints=[constraint]) as study:
        for number in range(4):
            job = study.ask(worker=text)
            assert job is not None
            if number == 2:
                study.fail(job, f"+{text}\n{text}")
            else:
                study.tell(job, {f"loss{text}": number, f"cost{text}": 1.0, f"more{text}": 2.0})
        assert study.ask() is not None
    return path


@pytest.mark.parametrize(
    "command",
    ["status", "best", "trials", "trials --population", "schedule", "replay", "export", "export --every-step"],
)
@pytest.mark.parametrize("more", ["", " --json"])
def test_every_command_that_looks_at_a_study(command: str, more: str, hostile: Path, call: Any) -> None:
    first, *rest = f"{command}{more}".split()
    code, out, err = call(first, hostile, *rest)
    assert (code, err) == (0, "")
    assert harmless(out) and out
    if more:
        json.loads(out)


def test_files_are_printable(hostile: Path, call: Any, tmp_path: Path) -> None:
    for name in ("trials.csv", "trials.json"):
        assert call("export", hostile, name).code == 0
        assert harmless((tmp_path / name).read_text())


def test_a_name_that_is_not_there(hostile: Path, call: Any) -> None:
    code, out, err = call("status", hostile, "--name", HOSTILE)
    assert (code, out) == (1, "") and harmless(err) and err.count("\n") == 1
