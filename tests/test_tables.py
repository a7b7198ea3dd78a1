"""What studies, trials and spaces look like, in text and in a notebook; rows for tables."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

import tunesmith as ts

SPACE = ts.Space(
    {
        "lr": ts.Float(1e-4, 1.0, log=True),
        "<b>": ts.Ordinal([8, 16]),
        "opt": ts.Categorical({"sgd": ts.Space({"m": ts.Float(0.0, 1.0), "n": ts.Constant(3)}), "adam": None}),
    },
    [ts.less_than("lr", "<b>")],
)


class Cells(HTMLParser):
    """The cells of a table, by row."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: set[str] = set()
        self._inside = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        self._inside = tag in ("td", "th")

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.rows[-1][-1] += data


@pytest.fixture
def study() -> ts.Study:
    made = ts.Study(SPACE, [ts.Goal("loss"), ts.Goal("top", maximise=True)], ts.samplers.QMC())
    for number in range(3):
        made.tell(made.ask(1)[0], {"loss": 0.5 + number, "top": float(number), "file": f"<i>{number}"})
    made.fail(made.ask(1)[0], "out of\x1b[31m memory")
    return made


def test_a_space_is_a_table_of_all_its_parameters() -> None:
    cells = Cells(SPACE._repr_html_())
    assert cells.tags == {"table", "caption", "thead", "tbody", "tr", "th", "td"}
    assert [row[0] for row in cells.rows] == ["parameter", "lr", "<b>", "opt", "m", "n", "constraint"]
    assert cells.rows[3] == ["opt", "Categorical(['sgd', 'adam'])", ""]
    assert cells.rows[4] == ["m", "Float(low=0.0, high=1.0)", "opt='sgd'"]
    nested = ts.Space({"a": ts.Categorical({1: SPACE, 2: None})})
    assert Cells(nested._repr_html_()).rows[5] == ["m", "Float(low=0.0, high=1.0)", "a=1 and opt='sgd'"]
    assert "<td>" not in ts.Space({})._repr_html_()


def test_a_study_and_its_trials_are_tables(study: ts.Study) -> None:
    for html in (study._repr_html_(), study.trials._repr_html_()):
        cells = Cells(html)
        assert len(cells.rows) == 5 and {"params.<b>", "metrics.loss", "notes.file"} <= set(cells.rows[0])
        assert "<i>" not in html and "\x1b" not in html
    assert "best loss=0.5 (trial 0), best top=2 (trial 2)" in study._repr_html_()
    assert len(repr(study.trials).splitlines()) == 5


def test_a_trial_shows_what_it_is_worth(study: ts.Study) -> None:
    first, failed = study.trials[0], study.trials[3]
    assert repr(first).startswith("Trial(0, status='complete', step=1, metrics={'loss': 0.5, 'top': 0.0}, config={")
    assert "error=" not in repr(first) and "error='out of\\x1b[31m memory'" in repr(failed)
    cells = Cells(first._repr_html_())
    assert ["loss", "0.5"] in cells.rows and ["file", "<i>0"] in cells.rows
    assert "\x1b" not in failed._repr_html_()


def test_an_error_is_that_of_the_present_job() -> None:
    """A worker that has vanished says nothing of a trial that was trained afterwards."""
    study = ts.Study(SPACE, ts.Goal("loss"), ts.samplers.QMC())
    study.fail(study.ask(1)[0], "the driver vanished", "lost")
    assert study.to_dicts()[0]["error"] == "the driver vanished"
    [job] = study.ask(1)
    assert study.to_dicts()[0]["error"] == ""
    study.tell(job, {"loss": 1.0})
    assert [study.to_dicts()[0][name] for name in ("status", "error")] == ["complete", ""]
