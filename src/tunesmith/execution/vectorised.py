"""A population as one program: all jobs that are ready are stacked, and trained together.

The states of the members stay on the device, one row each, from job to job. A member that goes on does so in its row;
a fork is a copy from row to row, and the disk has no part in it. Rows of members that have ended are given to the next
ones. Checkpoints are copied to the host and written by a thread of their own, while other members go on.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from time import perf_counter

from tunesmith.checkpoints import Checkpoints, Saved
from tunesmith.execution._rooms import Place, Resident, Room, Rooms, Running, together
from tunesmith.execution.base import Failure, Report, as_metrics
from tunesmith.execution.session import INTERRUPTED, Options, explain
from tunesmith.execution.stacks import STEPS, Columns, Group, Members, Stack, StackedTask, row_of
from tunesmith.study import Job, Study

MEMBERS = 64  #: trained at once where nothing else is said
_SECONDS = 0.5  # a launch takes about so long, and STEPS at most
_TIMED = 0.02  # a program is timed for at least so many seconds

log = logging.getLogger("tunesmith")


@dataclass
class _Held:
    """Reports that leave when the checkpoints of some of them are written."""

    reports: list[Report]
    saved: Future[list[Saved]] | None = None


class Vectorised:
    """Trains many members as one program.

    Args:
        task: the training code.
        options: as for sessions. With a target every launch is one step.
        members: how many are trained at once, where the task does not say.
        keep: the states that a later job may start from, as ``Study.startable``: where not all are written to disk,
            these are kept in memory when their members go on.
        last: the step at which trials end: states of this step are always written.
    """

    def __init__(
        self,
        task: StackedTask,
        options: Options,
        *,
        members: int | None = None,
        keep: Callable[[], Iterable[Place]] | None = None,
        last: int | None = None,
    ) -> None:
        self.slots = task.members or members or MEMBERS
        self._task, self._options, self._last = task, options, last
        self._checkpoints = None if options.root is None else Checkpoints(options.root)
        self._writer = ThreadPoolExecutor(1, "checkpoints")
        self._stopping = False
        self._queue: list[Job] = []
        self._out: set[int] = set()  # asks
        self._rooms = Rooms(task, self.slots, self._checkpoints, keep, self._writer, self._fail)
        self._turns: dict[Group, int] = {}  # by group, the number of its last launch
        self._launches = 0
        self._chunks: dict[Group, int] = {}
        self._pace: dict[tuple[Group, int], float] = {}  # seconds a step, by rows
        self._outbox: list[_Held] = []

    @property
    def free(self) -> int:
        """How many more jobs can be submitted now."""
        return self.slots - len(self._out)

    def submit(self, job: Job) -> None:
        """Take a job; ``wait`` trains."""
        self._out.add(job.ask)
        self._queue.append(job)

    def wait(self, timeout: float) -> list[Report]:
        """Launch a program once, however long it takes, and return the reports whose checkpoints are written."""
        queued, self._queue = self._queue, []
        self._rooms.seat(queued)
        if groups := self._rooms.groups():
            self._launch(groups)
        else:
            wait([held.saved for held in self._outbox if held.saved is not None], timeout, return_when=FIRST_COMPLETED)
        return list(self._deliver())

    def interrupt(self) -> None:
        """End the running jobs after one more step of each."""
        self._stopping = True

    def close(self) -> None:
        """Give up all states; checkpoints that are being written are written to their end."""
        self._writer.shutdown(cancel_futures=True)
        self._rooms.clear()

    # -- training

    def _launch(self, groups: Mapping[Group, Room]) -> None:
        """Train the group whose turn it is for some steps."""
        group = min(groups, key=lambda group: self._turns.get(group, -1))
        room = groups[group]
        self._launches += 1
        self._turns[group] = self._launches
        members = sorted(
            (member for member in room.running.values() if member.group == group), key=lambda member: member.row
        )
        try:
            columns, seconds = self._train(room, group, members)
            for index, member in enumerate(members):
                self._advance(member, columns, index, seconds / len(members))
        except Exception as error:
            self._fail([room.running.pop(member.row) for member in members], error)
            if room.stack.broken:
                self._lose(room)
            return
        self._report(room, members)

    def _train(self, room: Room, group: Group, members: list[Running]) -> tuple[Columns, float]:
        """The metrics, and the seconds that they took."""
        rows = [member.row for member in members]
        whole = rows == list(range(room.stack.rows))
        fill = 0 if whole else self._task.capacity(len(rows), self.slots) - len(rows)
        stack = room.stack if whole else room.stack.take(rows + rows[:1] * fill)
        every = together(group, members + members[:1] * fill)
        chunk = self._chunk(stack, every)
        pace = self._pace.get((group, stack.rows), math.inf)
        count = min(member.job.until - member.step for member in members)
        count = 1 if self._stopping or self._options.target else max(1, min(count, STEPS, int(_SECONDS / pace)))
        begun = perf_counter()
        columns = stack.run(every, count, chunk)
        seconds = perf_counter() - begun
        if not whole:
            room.stack.copy(rows, stack, range(len(rows)))
        self._pace[group, stack.rows] = seconds / count
        return columns, seconds

    def _chunk(self, stack: Stack, members: Members) -> int:
        """How many members to train at a time: what the task says, or what is faster for one step of copies."""
        group = members.group
        if self._task.chunk is not None or stack.rows < 2:
            return self._task.chunk or self.slots
        if group not in self._chunks:
            some = _timing(stack, members)
            alone = some(self._task.capacity(1, 1), 1)
            chunk, joint = self._fitting(some, stack.rows)
            self._chunks[group] = chunk if joint <= alone else 1
            way = "one after the other" if joint > alone else f"{min(chunk, stack.rows)} together"
            log.info("%s: members are trained %s (%.3g s a step of a member; alone %.3g)", group, way, joint, alone)
        return self._chunks[group]

    def _fitting(self, timed: Callable[[int, int], float], rows: int) -> tuple[int, float]:
        """All members together, or the largest half of them, quarter, ... that fits into memory; seconds of a step."""
        chunk = self.slots
        while True:
            try:
                return chunk, timed(rows, chunk)
            except Exception as error:
                if explain(error).kind != "out-of-memory":
                    raise
            chunk = min(chunk, rows) // 2
            if chunk < 2:
                return 1, math.inf

    def _advance(self, member: Running, columns: Columns, index: int, seconds: float) -> None:
        """Take in the metrics of a launch, up to the step at which the job ends."""
        required, target = self._options.required, self._options.target
        member.seconds += seconds
        for step in range(len(next(iter(columns.values())))):
            row = as_metrics(row_of(columns, step, index), required, member.once)
            member.once = {name: row.get(name) for name in member.once}
            member.pending.append(row)
            member.step += 1
            member.broken = not all(math.isfinite(row[name]) for name in required)
            enough = target is not None and target.reached_by_step(row.get)
            member.ended = member.broken or enough or self._stopping or member.step >= member.job.until
            if member.broken or enough:
                return

    # -- reports

    def _report(self, room: Room, members: list[Running]) -> None:
        """Say how it goes, where it is time for it; what is to be saved is copied and written in the background."""
        now = perf_counter()
        plain, saving = _Held([]), _Held([])
        rows, places = [], []
        for member in members:
            if not member.ended and now - member.reported < self._options.report_seconds:
                continue
            member.reported = now
            saved = self._due(member, now)
            if saved:
                rows.append(member.row)
                places.append((member.job.trial, member.step))
            if member.ended:
                del room.running[member.row]
            if member.ended and not member.broken:
                idle = Resident(member.row, 0 if saved else member.unsaved + 1)
                room.resident[member.job.trial, member.step] = idle
            failed = member.ended and not member.broken and member.step < member.job.until
            report = member.report(done=member.ended, failure=INTERRUPTED if failed else None)
            (saving if saved else plain).reports.append(report)
        if plain.reports:
            self._outbox.append(plain)
        if rows:
            saving.saved = self._writer.submit(self._write, room.stack.take(rows), places)
            self._outbox.append(saving)

    def _due(self, member: Running, now: float) -> bool:
        """Whether the state of a member is to be written now."""
        if self._checkpoints is None or member.broken:
            return False
        if not member.ended:
            due = now - member.saved >= self._options.checkpoint_seconds
            member.saved = now if due else member.saved
            return due
        whole = member.step >= member.job.until and member.step != self._last
        return not whole or member.unsaved + 1 >= self._task.checkpoint_every

    def _write(self, stack: Stack, places: list[Place]) -> list[Saved]:
        """In the thread that writes."""
        trees = zip(places, stack.trees(), strict=True)
        return [
            self._checkpoints.save(trial, step, {"step": step, "state": tree})  # type: ignore[union-attr]
            for (trial, step), tree in trees
        ]

    def _deliver(self) -> Iterable[Report]:
        """What can leave: reports of one job in their order, those with a checkpoint when it is written."""
        left, waiting = [], set[int]()
        for held in self._outbox:
            asks = {report.ask for report in held.reports}
            if waiting & asks or (held.saved is not None and not held.saved.done()):
                left.append(held)
                waiting |= asks
                continue
            for report in _with_checkpoints(held):
                if report.done:
                    self._out.discard(report.ask)
                yield report
        self._outbox = left

    def _fail(self, members: Iterable[Running], error: BaseException) -> None:
        """The jobs of these members end with an error."""
        failure = explain(error)
        for member in members:
            if member.pending and member.step >= member.job.until:
                member.pending.pop()
                member.step -= 1
            self._outbox.append(_Held([member.report(done=True, failure=failure)]))

    def _lose(self, room: Room) -> None:
        """A program that failed took the whole stack with it: the other jobs there are given back."""
        lost = Failure("the states on the device were lost when another member failed", "lost")
        for member in room.running.values():
            self._outbox.append(_Held([member.report(done=True, failure=lost)]))
        self._rooms.drop(room)


def _timing(stack: Stack, members: Members) -> Callable[[int, int], float]:
    """A function of rows and a chunk: the seconds that a step of a member takes, on copies of the first rows."""

    def timed(rows: int, chunk: int) -> float:
        copies = stack.take(range(rows))
        begun, seconds, count = 0.0, 0.0, 0
        while count < 2 or (seconds < _TIMED and count < STEPS):  # the first one is compiled
            begun = perf_counter() if count == 1 else begun
            copies.run(members.take(range(rows)), 1, chunk)
            seconds, count = perf_counter() - begun if count else 0.0, count + 1
        return seconds / (count - 1) / rows

    return timed


def _with_checkpoints(held: _Held) -> Iterable[Report]:
    """The reports, each with its checkpoint; where that could not be written, with the error."""
    if held.saved is None:
        return held.reports
    error = held.saved.exception()
    if error is None:
        return [replace(report, saved=saved) for report, saved in zip(held.reports, held.saved.result(), strict=True)]
    failure = explain(error)
    cut = ({name: values[:-1] for name, values in report.metrics.items()} for report in held.reports)
    return [
        replace(report, metrics=rest, done=True, failure=failure)
        for report, rest in zip(held.reports, cut, strict=True)
    ]


def for_study(task: StackedTask, options: Options, study: Study) -> Vectorised:
    """The executor for a study: as many members as its scheduler's population, and the last step from the scheduler."""
    scheduler = study.scheduler
    last = getattr(scheduler, "steps", None) or getattr(scheduler, "max_steps", None)
    return Vectorised(task, options, members=getattr(scheduler, "population", None), keep=study.startable, last=last)
