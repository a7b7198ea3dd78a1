"""A table of what trials came to: anyone's results, checked once, from rows or from a CSV file.

A row is one training: of a trial (a configuration) of an optimizer on a workload, with a training seed. The training
with the smallest seed is that of the search; those with other seeds repeat it, as one does with the winner.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from tunesmith import check
from tunesmith.comparison.statistics import Floats, best_of
from tunesmith.errors import TunesmithError, printable

COLUMNS = ("optimizer", "workload", "trial", "seed", "failed")
KINDS = ("final", "best", "steps")  #: of measures: the last value, the best one, the steps to the target
IGNORED = "params."  #: columns that begin so have hyperparameters, which nothing here reads
_YES_OR_NO = {"": False, "0": False, "false": False, "no": False, "1": True, "true": True, "yes": True}


class OutcomesError(TunesmithError, ValueError):
    """A table of results is not as it must be; the message says where, and what to do."""


@dataclass(frozen=True)
class Outcome:
    """One training.

    Attributes:
        optimizer: any label.
        trial: number of the configuration among those of this optimizer and workload.
        measures: by name: ``final``, ``best`` and ``steps`` (to the target), or several of each as
            ``final.test_error``. Finite numbers; steps over 0, infinite where the target was not reached. A training
            that failed may lack any.
        workload: any label.
        seed: of the training.
        failed: it diverged or crashed; whatever it measured counts as the worst value there is.
    """

    optimizer: str
    trial: int
    measures: Mapping[str, float] = field(hash=False)
    workload: str = ""
    seed: int = 0
    failed: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "measures", MappingProxyType(dict(self.measures)))

    def __reduce__(self) -> tuple[type[Outcome], tuple[Any, ...]]:
        return Outcome, (
            self.optimizer,
            self.trial,
            dict(self.measures),
            self.workload,
            self.seed,
            self.failed,
        )


class Outcomes:
    """An immutable table of outcomes.

    Args:
        rows: in any order.

    Attributes:
        rows: ordered by optimizer and workload as they first occur, then by trial and seed.
        optimizers, workloads, measures: names, as they first occur.
        notes: lines on what does not stop a comparison but must be known: unequal numbers of trials, an optimizer of
            which no trial has finished, one that has not been run on a workload.

    Raises:
        OutcomesError: there are no rows or measures, a row lacks one of the measures, a value is no number that the
            measure can have, a training occurs twice, or none has finished.
    """

    rows: tuple[Outcome, ...]
    optimizers: tuple[str, ...]
    workloads: tuple[str, ...]
    measures: tuple[str, ...]
    notes: tuple[str, ...]
    _groups: dict[tuple[str, str], dict[int, list[Outcome]]]  # by optimizer and workload, by trial

    def __init__(self, rows: Iterable[Outcome]) -> None:
        found = [(f"row {i}", row) for i, row in enumerate(rows)]
        self._fill(found, "the table", tuple(dict.fromkeys(measure for _, row in found for measure in row.measures)))

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"Outcomes cannot be changed: make another table to have another {name}")

    def __reduce__(self) -> tuple[type[Outcomes], tuple[tuple[Outcome, ...]]]:
        return Outcomes, (self.rows,)

    @classmethod
    def read(cls, path: str | PathLike[str]) -> Outcomes:
        """A table from a CSV file with a header.

        Columns: ``optimizer``, ``trial`` and at least one measure, ``final``, ``best``, ``steps`` or such as
        ``final.test_error``; ``workload``, ``seed`` and ``failed`` (yes or no, 1 or 0, true or false) may be left out.
        Columns that begin with ``params.`` are not read. A training that failed may leave its measures empty; steps to
        a target that was not reached are ``inf``.

        Raises:
            OutcomesError: as the class, or the file cannot be read, or a column is unknown or missing.
        """
        name = printable(str(path))
        try:
            with Path(path).open(encoding="utf-8-sig", newline="") as file:
                lines = list(_lines(csv.reader(file, strict=True), name))
        except (OSError, UnicodeError, csv.Error) as error:
            raise OutcomesError(f"{name} cannot be read: {printable(str(error))}") from None
        if not lines:
            raise OutcomesError(f"{name} is empty: the first line names the columns, such as optimizer,trial,final")
        _check_header(lines[0][1], name)
        header = lines[0][1]
        table = cls.__new__(cls)
        rows = [(where, _row(header, cells, where)) for where, cells in lines[1:]]
        table._fill(rows, name, tuple(column for column in header if _kind(column)))
        return table

    @property
    def smallest(self) -> int:
        """The smallest number of trials of an optimizer on a workload that it was run on: the largest fair budget."""
        return min(len(seeds) for seeds in self._groups.values())

    def values(
        self, optimizer: str, workload: str | None = None, measure: str = "final", *, maximise: bool = False
    ) -> Floats:
        """A measure of all trials of the search, by their number: [trials]; infinity where a trial failed.

        Args:
            optimizer: its label.
            workload: its label; may be left out if there is one only.
            measure: its name.
            maximise: larger is better, so that failing is minus infinity. Not for steps.

        Raises:
            OutcomesError: the table has none of this name, or no such trials.
        """
        group = self._group(optimizer, workload)
        return self._measured((seeds[0] for seeds in group.values()), measure, maximise)

    def repeats(
        self, optimizer: str, trial: int, workload: str | None = None, measure: str = "final", *, maximise: bool = False
    ) -> Floats:
        """A measure of a trial's trainings with other seeds than that of the search: [seeds], which may be none.

        Args:
            trial: its number, as in the table.
            optimizer, workload, measure, maximise: as of ``values``.

        Raises:
            OutcomesError: as ``values``, or there is no such trial.
        """
        group = self._group(optimizer, workload)
        if trial not in group:
            raise OutcomesError(f"{optimizer!r} has no trial {trial}")
        return self._measured(group[trial][1:], measure, maximise)

    def trial_numbers(self, optimizer: str, workload: str | None = None) -> tuple[int, ...]:
        """The numbers of the trials, in the order of ``values``."""
        return tuple(self._group(optimizer, workload))

    def times(self, measure: str = "steps") -> Floats:
        """Steps to the target by the best of ``smallest`` trials of the search, by the median of that (see
        ``best_of``).

        So optimizers with more trials have no advantage, and where all have the same number it is their fastest trial.

        Args:
            measure: its name, which is ``steps`` or such as ``steps.test_error``.

        Returns:
            [optimizers, workloads], for ``profile`` and ``score``; infinite where the target was not reached, also
            where an optimizer was not run on a workload.

        Raises:
            OutcomesError: there is no such measure, or it is not of steps.
        """
        if _kind(measure) != "steps":
            raise OutcomesError(
                f"times are steps to a target, not {_shown(measure)}: give steps or such as steps.test_error"
            )
        found = np.full((len(self.optimizers), len(self.workloads)), math.inf)
        for i, optimizer in enumerate(self.optimizers):
            for j, workload in enumerate(self.workloads):
                if (optimizer, workload) in self._groups:
                    steps = self.values(optimizer, workload, measure)
                    found[i, j] = best_of(steps, [self.smallest]).median[0]
        return found

    def _fill(self, found: Sequence[tuple[str, Outcome]], name: str, measures: tuple[str, ...]) -> None:
        """Check rows, each with the words that say where it is, and take them in."""
        if not found:
            raise OutcomesError(f"{name} has no rows: nothing to compare")
        if not measures:
            raise OutcomesError(f"{name} has no measures: give {', '.join(KINDS)} or such as final.test_error")
        first: dict[tuple[str, str, int, int], str] = {}
        for where, row in found:
            _check_row(row, measures, where)
            key = (row.optimizer, row.workload, row.trial, row.seed)
            if key in first:
                raise OutcomesError(f"{where}: {_named(row)} is already in {first[key]}: give every training once")
            first[key] = where
        if all(row.failed for _, row in found):
            raise OutcomesError(f"{name}: no training has finished: nothing to compare")
        optimizers = {row.optimizer: None for _, row in found}
        workloads = {row.workload: None for _, row in found}
        optimizer = {label: i for i, label in enumerate(optimizers)}
        workload = {label: i for i, label in enumerate(workloads)}
        rows = tuple(
            sorted(
                (row for _, row in found),
                key=lambda row: (optimizer[row.optimizer], workload[row.workload], row.trial, row.seed),
            )
        )
        groups: dict[tuple[str, str], dict[int, list[Outcome]]] = {}
        for row in rows:
            groups.setdefault((row.optimizer, row.workload), {}).setdefault(row.trial, []).append(row)
        self.__dict__.update(rows=rows, measures=measures, _groups=groups)
        self.__dict__.update(optimizers=tuple(optimizers), workloads=tuple(workloads))
        self.__dict__["notes"] = tuple(self._noted())

    def _noted(self) -> Iterable[str]:
        sizes = {key: len(seeds) for key, seeds in self._groups.items()}
        if len(set(sizes.values())) > 1:
            few, many = min(sizes, key=lambda key: sizes[key]), max(sizes, key=lambda key: sizes[key])
            yield (
                f"unequal numbers of trials, {sizes[few]} of {_place(*few)} to {sizes[many]} of {_place(*many)}: "
                f"compare the best of {self.smallest} or fewer"
            )
        for key, group in self._groups.items():
            if all(seeds[0].failed for seeds in group.values()):
                yield f"none of the {len(group)} trials of {_place(*key)} has finished: all count as the worst value"
        for optimizer in self.optimizers:
            for workload in self.workloads:
                if (optimizer, workload) not in self._groups:
                    yield f"{_place(optimizer, workload)} has no trials"

    def _group(self, optimizer: str, workload: str | None) -> dict[int, list[Outcome]]:
        if optimizer not in self.optimizers:
            raise OutcomesError(f"no optimizer {optimizer!r}; there are {_listed(self.optimizers)}")
        if workload is None:
            if len(self.workloads) > 1:
                raise OutcomesError(f"say which workload: there are {_listed(self.workloads)}")
            workload = self.workloads[0]
        if workload not in self.workloads:
            raise OutcomesError(f"no workload {workload!r}; there are {_listed(self.workloads)}")
        if (optimizer, workload) not in self._groups:
            raise OutcomesError(f"{_place(optimizer, workload)} has no trials")
        return self._groups[optimizer, workload]

    def _measured(self, rows: Iterable[Outcome], measure: str, maximise: bool) -> Floats:
        check.flag("Outcomes", maximise=maximise)
        if measure not in self.measures:
            raise OutcomesError(f"no measure {measure!r}; there are {_listed(self.measures)}")
        if maximise and _kind(measure) == "steps":
            raise OutcomesError(f"{_shown(measure)} are steps to a target: fewer are better, so not with maximise=True")
        worst = -math.inf if maximise else math.inf
        return np.array([worst if row.failed else row.measures[measure] for row in rows], dtype=np.float64)


def _lines(reader: Any, name: str) -> Iterable[tuple[str, list[str]]]:
    """The lines that are not blank, with the words that say where they are."""
    for cells in reader:
        stripped = [cell.strip() for cell in cells]
        if any(stripped):
            yield f"{name}, line {reader.line_num}", stripped


def _check_header(header: Sequence[str], name: str) -> None:
    for column in header:
        if column in COLUMNS or column.startswith(IGNORED) or _kind(column):
            continue
        near = get_close_matches(column, (*COLUMNS, *KINDS), n=1)
        meant = f"did you mean {near[0]}?" if near else f"a measure is named such as final.{_shown(column) or 'loss'}"
        raise OutcomesError(
            f"{name}: unknown column {_shown(column)!r}; there are {', '.join((*COLUMNS, *KINDS))}, "
            f"final.<measure>, best.<measure>, steps.<measure> and params.<name>; {meant}"
        )
    twice = [column for column in header if header.count(column) > 1]
    if twice:
        raise OutcomesError(f"{name}: the column {_shown(twice[0])} occurs twice")
    for column in ("optimizer", "trial"):
        if column not in header:
            raise OutcomesError(f"{name}: the column {column} is missing")


def _row(header: Sequence[str], cells: Sequence[str], where: str) -> Outcome:
    """A line of a file as an outcome."""
    if len(cells) != len(header):
        raise OutcomesError(f"{where}: {len(cells)} values under {len(header)} columns")
    line = dict(zip(header, cells, strict=True))
    answer = line.get("failed", "").lower()
    if answer not in _YES_OR_NO:
        raise OutcomesError(f"{where}: failed={_shown(answer)!r} must be yes or no, 1 or 0, true or false")
    measures = {}
    for column, text in line.items():
        if _kind(column) and text:
            measures[column] = _number(text, column, where)
        elif _kind(column) and not _YES_OR_NO[answer]:
            unreached = ", inf where the target was not reached" if _kind(column) == "steps" else ""
            raise OutcomesError(
                f"{where}: {_shown(column)} is empty: write a number{unreached}, or failed=1 for a trial that diverged"
            )
    if not line["optimizer"]:
        raise OutcomesError(f"{where}: optimizer is empty: write its name")
    trial = _whole(line["trial"], "trial", where)
    seed = _whole(line.get("seed", "0"), "seed", where)
    return Outcome(line["optimizer"], trial, measures, line.get("workload", ""), seed, _YES_OR_NO[answer])


def _number(text: str, column: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise OutcomesError(f"{where}: {_shown(column)}={_shown(text)!r} must be a number") from None


def _whole(text: str, column: str, where: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise OutcomesError(f"{where}: {column}={_shown(text)!r} must be a whole number") from None


def _check_row(row: Outcome, measures: Sequence[str], where: str) -> None:
    for column in ("optimizer", "workload"):
        if not isinstance(getattr(row, column), str):
            raise OutcomesError(f"{where}: {column}={getattr(row, column)!r} must be a text")
    for column in ("trial", "seed"):
        if type(getattr(row, column)) is not int:
            raise OutcomesError(f"{where}: {column}={getattr(row, column)!r} must be a whole number")
    if not isinstance(row.failed, bool):
        raise OutcomesError(f"{where}: failed={row.failed!r} must be True or False")
    for measure in measures:
        if not _kind(measure):
            raise OutcomesError(
                f"{where}: a measure {measure!r} must be {', '.join(KINDS)}, or such as final.test_error"
            )
        if row.failed:
            continue
        if measure not in row.measures:
            raise OutcomesError(
                f"{where}: {_named(row)} has no {_shown(measure)}, which others have: give it, or failed=True"
            )
        value = row.measures[measure]
        if isinstance(value, bool) or not isinstance(value, int | float | np.floating | np.integer):
            raise OutcomesError(f"{where}: {_shown(measure)}={value!r} must be a number")
        if _kind(measure) == "steps":
            if not value > 0:
                raise OutcomesError(
                    f"{where}: {_shown(measure)}={value} must be over 0, inf where the target was not reached"
                )
        elif not math.isfinite(value):
            raise OutcomesError(
                f"{where}: {_shown(measure)}={value} is no finite number: write failed=1 for a trial that diverged"
            )


def _kind(measure: str) -> str:
    """final, best or steps, of which a column is; empty if it is no measure."""
    kind, dot, name = measure.partition(".")
    return kind if kind in KINDS and bool(dot) == bool(name) else ""


def _place(optimizer: str, workload: str) -> str:
    """An optimizer on a workload, in words."""
    return f"{_shown(optimizer)} on {_shown(workload)}" if workload else _shown(optimizer)


def _shown(text: str) -> str:
    """Text of a table in one line, cut where it is long."""
    return printable(" ".join(text.split()))[:60]


def _listed(labels: Iterable[str]) -> str:
    return ", ".join(map(_shown, labels))


def _named(row: Outcome) -> str:
    """A training in words."""
    return f"trial {row.trial} of {_place(row.optimizer, row.workload)} with seed {row.seed}"
