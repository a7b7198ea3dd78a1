"""Tables of results, read from rows and files, with all that can be wrong about them."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.comparison import Outcome, Outcomes, OutcomesError
from tunesmith.errors import TunesmithError

GOOD = """optimizer,workload,trial,seed,final,best,steps,final.test_error,failed,params.lr
sgd,digits,0,0,0.4,0.3,100,0.41,no,0.1
sgd,digits,1,0,0.2,0.2,50,0.25,,0.01
sgd,digits,1,7,0.3,0.2,60,0.26,,0.01
sgd,digits,1,8,0.4,0.2,inf,0.27,,0.01
adam,digits,0,0,0.1,0.1,40,0.15,0,0.1

adam,digits,1,0,,,,,yes,10
"""


def file(tmp_path, text, name="results.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_table(tmp_path):
    table = Outcomes.read(file(tmp_path, GOOD))
    assert table.optimizers == ("sgd", "adam")
    assert table.workloads == ("digits",)
    assert table.measures == ("final", "best", "steps", "final.test_error")
    assert len(table.rows) == 6
    assert table.values("sgd").tolist() == [0.4, 0.2]
    assert table.values("sgd", "digits", "final.test_error").tolist() == [0.41, 0.25]
    assert table.values("adam").tolist() == [0.1, np.inf]
    assert table.values("adam", maximise=True).tolist() == [0.1, -np.inf]
    assert table.repeats("sgd", 1).tolist() == [0.3, 0.4]
    assert table.repeats("sgd", 0).tolist() == []
    assert table.trial_numbers("sgd") == (0, 1)
    assert table.times().tolist() == [[50.0], [40.0]]
    assert table.smallest == 2
    assert table.notes == ()


def test_the_same_from_rows_in_any_order(tmp_path):
    table = Outcomes.read(file(tmp_path, GOOD))
    again = Outcomes([*reversed(table.rows)])
    assert again.optimizers == ("adam", "sgd")
    for optimizer in table.optimizers:
        np.testing.assert_array_equal(again.values(optimizer), table.values(optimizer))
    assert again.repeats("sgd", 1).tolist() == table.repeats("sgd", 1).tolist()


def test_the_least_columns_and_what_excel_writes(tmp_path):
    table = Outcomes.read(file(tmp_path, "\ufeffoptimizer, trial ,final\r\na,0, 1e-3 \r\n\r\n,,\r\na,1,2\r\n"))
    assert table.values("a").tolist() == [0.001, 2.0]
    assert table.rows[0] == Outcome("a", 0, {"final": 0.001})


def test_tables_cannot_be_changed_and_can_be_copied():
    table = Outcomes([Outcome("a", 0, {"final": 1.0}), Outcome("b", 0, {"final": 2.0})])
    with pytest.raises(AttributeError, match="cannot be changed"):
        table.rows = ()
    with pytest.raises(AttributeError):
        table.rows[0].failed = True
    with pytest.raises(TypeError):
        table.rows[0].measures["final"] = 0.0
    table.values("a")[0] = 5.0
    assert table.values("a").tolist() == [1.0]
    for same in (pickle.loads(pickle.dumps(table)), copy.deepcopy(table)):
        assert same.rows == table.rows
        assert same.values("b").tolist() == [2.0]
    assert len({*table.rows, *copy.deepcopy(table).rows}) == 2


def test_unequal_numbers_of_trials_are_noted():
    rows = [Outcome("a", i, {"final": i, "steps": 10 - i}) for i in range(7)]
    rows += [Outcome("b", i, {"final": i, "steps": 7.0}) for i in range(3)]
    table = Outcomes(rows)
    assert table.smallest == 3
    assert table.notes == ("unequal numbers of trials, 3 of b to 7 of a: compare the best of 3 or fewer",)
    assert table.times().tolist() == [[5.0], [7.0]]  # the best of 3 of 4, 5, ..., 10 is 4 with probability 3 / 7


def test_an_optimizer_without_a_finished_trial_is_noted():
    rows = [Outcome("a", 0, {"final": 1.0}, "x"), Outcome("a", 0, {"final": 1.0}, "y")]
    rows += [Outcome("b", i, {}, "x", failed=True) for i in range(2)]
    table = Outcomes(rows)
    assert table.values("b", "x").tolist() == [np.inf, np.inf]
    assert table.notes == (
        "unequal numbers of trials, 1 of a on x to 2 of b on x: compare the best of 1 or fewer",
        "none of the 2 trials of b on x has finished: all count as the worst value",
        "b on y has no trials",
    )
    with pytest.raises(OutcomesError, match="b on y has no trials"):
        table.values("b", "y")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "results.csv is empty: the first line names the columns, such as optimizer,trial,final"),
        ("optimizer,trial,final\n", "results.csv has no rows: nothing to compare"),
        ("optimizer,trial\na,0\n", "has no measures: give final, best, steps or such as final.test_error"),
        ("optimizer,final\na,1\n", "results.csv: the column trial is missing"),
        ("trial,final\n0,1\n", "results.csv: the column optimizer is missing"),
        ("optimizer,trial,final,final\na,0,1,1\n", "results.csv: the column final occurs twice"),
        ("optimiser,trial,final\na,0,1\n", "unknown column 'optimiser'; there are .*; did you mean optimizer?"),
        ("optimizer,trial,loss\na,0,1\n", "unknown column 'loss'; .*; a measure is named such as final.loss"),
        ("optimizer,trial,final.\na,0,1\n", "unknown column 'final.'; "),
        ("optimizer,trial,final\na,0,\n", "results.csv, line 2: final is empty: write a number, or failed=1"),
        ("optimizer,trial,steps\na,0,\n", "steps is empty: write a number, inf where the target was not reached, or"),
        ('optimizer,trial,final\n"a\nb",0,1\n"a\nb",0,1\n', "line 5: trial 0 of a b with seed 0 is already in"),
        ('optimizer,trial,"lo\nss"\na,0,1\n', "unknown column 'lo ss'; .* such as final.lo ss"),
        ("optimizer,trial,final\na,0,1\na,1,fast\n", "results.csv, line 3: final='fast' must be a number"),
        ("optimizer,trial,final\na,x,1\n", "line 2: trial='x' must be a whole number"),
        ("optimizer,trial,final\na,,1\n", "line 2: trial='' must be a whole number"),
        ("optimizer,trial,seed,final\na,0,1.5,1\n", "line 2: seed='1.5' must be a whole number"),
        ("optimizer,trial,final\n,0,1\n", "line 2: optimizer is empty: write its name"),
        ("optimizer,trial,final\na,0\n", "line 2: 2 values under 3 columns"),
        ("optimizer,trial,final\na,0,1,2\n", "line 2: 4 values under 3 columns"),
        ("optimizer,trial,final\na,0,nan\n", "line 2: final=nan is no finite number: write failed=1 for a trial that"),
        ("optimizer,trial,final\na,0,inf\n", "line 2: final=inf is no finite number"),
        ("optimizer,trial,steps\na,0,0\n", r"line 2: steps=0\.0 must be over 0, inf where the target was not reached"),
        ("optimizer,trial,steps\na,0,nan\n", "line 2: steps=nan must be over 0"),
        ("optimizer,trial,final,failed\na,0,1,perhaps\n", "line 2: failed='perhaps' must be yes or no, 1 or 0"),
        ("optimizer,trial,final,failed\na,0,,1\n", "results.csv: no training has finished: nothing to compare"),
        (
            "optimizer,trial,final\na,0,1\nb,0,1\na,0,2\n",
            "line 4: trial 0 of a with seed 0 is already in .*results.csv, line 2: give every training once",
        ),
        ('optimizer,trial,final\n"a,0,1\n', "results.csv cannot be read: "),
    ],
)
def test_what_is_wrong_in_a_file_is_said_in_one_line(tmp_path, text, message):
    with pytest.raises(OutcomesError, match=message) as caught:
        Outcomes.read(file(tmp_path, text))
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, TunesmithError)
    assert isinstance(caught.value, ValueError)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(OutcomesError, match=r"none\.csv cannot be read: .*No such file"):
        Outcomes.read(tmp_path / "none.csv")
    with pytest.raises(OutcomesError, match="cannot be read"):
        Outcomes.read(tmp_path)
    (tmp_path / "bytes.csv").write_bytes(b"optimizer,trial,final\n\xff\xfe,0,1\n")
    with pytest.raises(OutcomesError, match=r"bytes.csv cannot be read: .*utf-8"):
        Outcomes.read(tmp_path / "bytes.csv")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            Outcome("b", 0, {}),
            "row 1: trial 0 of b with seed 0 has no final, which others have: give it, or failed=True",
        ),
        (Outcome("b", 0, {"final": "low"}), "row 1: final='low' must be a number"),
        (Outcome("b", 0, {"final": True}), "row 1: final=True must be a number"),
        (Outcome("b", 0, {"final": 1.0, "loss": 1.0}), "a measure 'loss' must be final, best, steps, or such as"),
        (Outcome("b", 0.0, {"final": 1.0}), r"row 1: trial=0\.0 must be a whole number"),
        (Outcome("b", 0, {"final": 1.0}, seed=True), "row 1: seed=True must be a whole number"),
        (Outcome(3, 0, {"final": 1.0}), "row 1: optimizer=3 must be a text"),
        (Outcome("b", 0, {"final": 1.0}, failed=1), "row 1: failed=1 must be True or False"),
        (Outcome("a", 0, {"final": 1.0}), "row 1: trial 0 of a with seed 0 is already in row 0"),
    ],
)
def test_what_is_wrong_in_rows(row, message):
    with pytest.raises(OutcomesError, match=message):
        Outcomes([Outcome("a", 0, {"final": 1.0}), row])


def test_what_is_not_in_a_table():
    rows = [Outcome("a", 0, {"final": 1.0, "steps": 5}, workload) for workload in ("x", "y")]
    table = Outcomes(rows)
    for call, message in (
        (lambda: table.values("b", "x"), "no optimizer 'b'; there are a"),
        (lambda: table.values("a"), "say which workload: there are x, y"),
        (lambda: table.values("a", "z"), "no workload 'z'; there are x, y"),
        (lambda: table.values("a", "x", "best"), "no measure 'best'; there are final, steps"),
        (lambda: table.values("a", "x", "steps", maximise=True), "fewer are better"),
        (lambda: table.repeats("a", 3, "x"), "'a' has no trial 3"),
        (lambda: table.times("final"), "times are steps to a target, not final"),
        (lambda: table.times("steps.loss"), "no measure 'steps.loss'"),
    ):
        with pytest.raises(OutcomesError, match=message):
            call()
    with pytest.raises(OutcomesError, match="the table has no rows"):
        Outcomes([])


@given(st.text(max_size=200))
def test_any_text_is_a_table_or_one_line(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(("optimizer,trial,final\n" + text).encode("utf-8", errors="surrogatepass"))
    try:
        Outcomes.read(path)
    except OutcomesError as error:
        assert "\n" not in str(error)
