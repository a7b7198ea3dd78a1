"""A population as one program: all jobs that are ready are stacked, and trained together.

The states of the members stay on the device, one row each, from job to job. A member that goes on does so in its row;
a fork is a copy from row to row, and the disk has no part in it. Rows of members that have ended are given to the next
ones. Checkpoints are copied to the host and written by a thread of their own, while other members go on.

Where many members are trained some at a time, these are *waves*: while one is on the device, the driver tells and
decides what the wave before it has reached.
"""

from __future__ import annotations

import gc
import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np

from tunesmith.checkpoints import Checkpoints, Saved
from tunesmith.execution._rooms import Place, Resident, Room, Rooms, Running, full, in_parts, together
from tunesmith.execution.base import Executor, Failure, Kept, Report, as_metrics
from tunesmith.execution.session import INTERRUPTED, Options, explain
from tunesmith.execution.stacks import FIXED, STEPS, Columns, Group, Layout, Members, Stack, StackedTask, row_of
from tunesmith.space import Space
from tunesmith.study import Job, Study

MEMBERS = 64  #: trained at once where nothing else is said
WAVE = 128  #: a wave has at least so many members
_SECONDS = 0.5  # a launch takes about so long, and STEPS at most
_TIMED = 0.02  # a program is timed for at least so many seconds
_DRAWS = 32  # configurations of which the shapes are looked at before a population is trained
_DRIVER = 1e-4  # seconds that telling and deciding take, for the job of a member

log = logging.getLogger("tunesmith")


@dataclass
class _Held:
    """Reports that leave when the checkpoints of some of them are written."""

    reports: list[Report]
    saved: Future[list[Saved]] | None = None


@dataclass
class _Launch:
    """A program on its way.

    Attributes:
        room: where its members are at home.
        group: theirs.
        members: who is trained, in the order of the rows of the stack.
        stack: their states.
        whole: it is the stack of the room, which has nobody else; otherwise they are copies.
        count: steps.
        columns: waits for the metrics.
        begun: when it was sent off.
    """

    room: Room
    group: Group
    members: list[Running]
    stack: Stack
    whole: bool
    count: int
    columns: Callable[[], Columns]
    begun: float


class Vectorised(Executor):
    """Trains many members as one program.

    Args:
        task: the training code.
        options: as for sessions. With a target every launch is one step.
        members: how many are trained at once, where the task does not say.
        keep: the states, as (trial, step), that may still be needed, as ``Study.needed``: where not all are written to
            disk, these are kept in memory when their members go on.
        last: the step at which trials end: states of this step are always written.
        save_every_jobs: every how many jobs of a member its state is written, instead of what the task says.
    """

    def __init__(
        self,
        task: StackedTask,
        options: Options,
        *,
        members: int | None = None,
        keep: Callable[[], Iterable[Place]] | None = None,
        last: int | None = None,
        save_every_jobs: int | None = None,
    ) -> None:
        self._slots = task.members or members or MEMBERS
        self._task, self._options, self._last = task, options, last
        self._save_every = save_every_jobs or task.save_every_jobs
        self._checkpoints = None if options.root is None else Checkpoints(options.root)
        self._writer = ThreadPoolExecutor(1, "checkpoints")
        self._stopping = False
        self._frozen = False  # whether the garbage collector passes over what was there before
        self._queue: list[Job] = []
        self._out: set[int] = set()  # asks
        self._rooms = Rooms(task, self._slots, self._checkpoints, keep, self._writer, self._fail)
        self._launches: deque[_Launch] = deque()  # the oldest first
        self._wave = self._slots  # so many jobs are launched together
        self._at_once = 1  # launches on the device
        self._narrow = False  # there is no memory for two of them
        self._ended = 0.0  # when the last one has
        self._turn = 0
        self._turns: dict[Group, int] = {}  # by group, the turn of its last launch
        self._most: dict[Group, int] = {}  # so many members at most have memory together
        self._spared: set[Group] = set()  # a launch took the states with it: from now on it is given copies
        self._pace: dict[tuple[Group, int], float] = {}  # seconds a step, by rows
        self._outbox: list[_Held] = []
        if task.chunk is not None:
            self._make_waves(task.chunk)

    @property
    def slots(self) -> int:
        """How many members are trained at once."""
        return self._slots

    @property
    def free(self) -> int:
        """How many more jobs can be submitted now: those of a wave, then ``wait`` must be called."""
        return max(0, min(self._slots - len(self._out), self._wave - len(self._queue)))

    def submit(self, job: Job) -> None:
        """Take a job; ``wait`` trains."""
        self._out.add(job.ask)
        self._queue.append(job._replace(config=self._options.values(job.config)))

    def wait(self, timeout: float) -> list[Report]:
        """Launch what has come in, and wait until the oldest launch is done, however long it takes.

        Returns:
            The reports whose checkpoints are written. None at all, and at once, where another wave may be submitted.
        """
        if not self._frozen:
            gc.freeze()  # what is there now, a million objects of JAX among it, need not be looked at in every round
            self._frozen = True
        self._queue = self._rooms.seat(self._queue)
        launched = False
        while len(self._launches) < self._at_once and self._launch():
            launched = True
        if launched and len(self._launches) < self._at_once and self.free > 0:
            return list(self._deliver())
        if self._launches:
            self._land(self._launches.popleft())
        else:
            wait([held.saved for held in self._outbox if held.saved is not None], timeout, return_when=FIRST_COMPLETED)
        return list(self._deliver())

    def interrupt(self) -> None:
        """End the running jobs after one more step of each."""
        self._stopping = True

    def share(self) -> None:
        """From now on every job's state is written before the job is told as done."""
        self._save_every = 1

    def flush(self, keep: Iterable[Place]) -> Iterator[Kept]:
        """Write what is in memory alone."""
        if self._checkpoints is not None:
            for ask, (trial, step), tree in self._rooms.unsaved(set(keep)):
                yield Kept(ask, trial, self._write(trial, step, tree))

    def close(self) -> None:
        """Give up all states; checkpoints that are being written are written to their end."""
        if self._frozen:
            gc.unfreeze()
        self._launches.clear()
        self._writer.shutdown(cancel_futures=True)
        self._rooms.clear()

    # -- training

    def _launch(self) -> bool:
        """Send the members off whose turn it is. False: there are none."""
        groups = self._rooms.groups()
        if not groups:
            return False
        group = min(groups, key=lambda group: self._turns.get(group, -1))
        room = groups[group]
        self._turn += 1
        self._turns[group] = self._turn
        members = self._company(room, group)
        try:
            self._launches.append(self._sent(room, group, members))
        except Exception as error:
            self._failed(room, group, members, error, broken=False)
        else:
            for member in members:
                member.launched = True
        return True

    def _company(self, room: Room, group: Group) -> list[Running]:
        """Members of a group that wait, in the order of their rows: as many as have memory and may be together."""
        waiting = [member for member in room.running.values() if member.group == group and not member.launched]
        waiting.sort(key=lambda member: member.row)
        company = waiting[0].company
        same = [member for member in waiting if member.company == company]
        return same[: int(min(company, self._most.get(group, self._slots)))]

    def _sent(self, room: Room, group: Group, members: list[Running]) -> _Launch:
        assert room.stack is not None
        rows = [member.row for member in members]
        whole = group not in self._spared and rows == list(range(room.stack.rows))
        fill = 0 if whole else self._task.capacity(len(rows), self._slots) - len(rows)
        stack = room.stack if whole else room.stack.take(rows + rows[:1] * fill)
        every = together(group, members + members[:1] * fill)
        steps = min(member.job.until - member.step for member in members)
        chunk = self._chunk(stack, every, steps)
        pace = self._pace.get((group, stack.rows), math.inf)
        count = 1 if self._stopping or self._options.target else max(1, min(steps, STEPS, int(_SECONDS / pace)))
        begun = perf_counter()
        return _Launch(room, group, members, stack, whole, count, stack.run(every, count, chunk), begun)

    def _land(self, launch: _Launch) -> None:
        """Wait for a launch, and take in what it has reached."""
        room, members = launch.room, launch.members
        for member in members:
            member.launched = False
        try:
            columns = launch.columns()
            seconds = perf_counter() - max(launch.begun, self._ended)
            self._pace[launch.group, launch.stack.rows] = seconds / launch.count
            if not launch.whole:
                assert room.stack is not None
                room.stack.copy([member.row for member in members], launch.stack, range(len(members)))
        except Exception as error:
            self._failed(room, launch.group, members, error, broken=launch.whole)  # where they stand nobody knows
            return
        finally:
            self._ended = perf_counter()
        try:
            self._advance(members, columns, seconds / len(members))
            self._report(launch)
        except Exception as error:
            self._give_up(room, members, explain(error))

    def _failed(self, room: Room, group: Group, members: list[Running], error: Exception, *, broken: bool) -> None:
        """A launch has failed: for want of memory, or through some of its members, where smaller ones may do."""
        broken = broken or room.stack is None or room.stack.broken
        if full(error) and self._launches:
            self._at_once, self._wave, self._narrow = 1, self._slots, True  # there is no memory for two of them
        elif full(error) and len(members) > 1:
            self._most[group] = len(members) // 2
            log.info("%s: there is no memory to train %d members together", group, len(members))
        elif self._task.may_be_one(error) and len(members) > 1:
            for member in members:
                member.company = len(members) // 2
        else:
            self._give_up(room, members, explain(error))
        if broken:
            self._spared.add(group)
            self._launches = deque(launch for launch in self._launches if launch.room is not room)
            self._rooms.lose(room)

    def _chunk(self, stack: Stack, members: Members, steps: int) -> int:
        """How many members to train at a time: what the task says, or what is faster for one step of copies."""
        group, rows = members.group, stack.rows
        if self._task.chunk is not None or rows < 2:
            return self._task.chunk or self._slots
        if (group, self._slots) not in self._task.chunks:
            some = _timing(stack, members)
            alone = some(self._task.capacity(1, 1), 1)
            chunk, joint = self._fitting(some, rows, group)
            chunk, joint, way = (chunk, joint, "together") if joint <= alone else (1, alone, "one after the other")
            if chunk >= rows and joint * steps < 50 * _DRIVER:  # else what the driver does does not matter
                wave = _quickest(some, rows, joint, steps)
                chunk = wave if wave < rows else chunk
            self._task.chunks[group, self._slots] = chunk
            way = way if chunk == 1 else f"{min(chunk, rows)} {way}"
            log.info("%s: members are trained %s (%.3g s a step of a member; alone %.3g)", group, way, joint, alone)
        chunk = self._task.chunks[group, self._slots]
        self._make_waves(chunk)
        return chunk

    def _fitting(self, timed: Callable[[int, int], float], rows: int, group: Group) -> tuple[int, float]:
        """All members together, or the largest half of them, quarter, ... that fits into memory; seconds of a step."""
        chunk = self._slots
        while True:
            try:
                return chunk, timed(min(rows, chunk), chunk)
            except Exception as error:
                if not full(error):
                    text = str(error).partition("\n")[0]
                    log.warning("%s: members are trained one after the other; together it fails: %s", group, text)
                    return 1, math.inf
            chunk = min(chunk, rows) // 2
            if chunk < 2:
                return 1, math.inf

    def _make_waves(self, chunk: int) -> None:
        """Launch whole chunks, where there are enough of them to have two on the device at a time."""
        wave = max(1, -(-WAVE // chunk)) * chunk
        if 2 * wave <= self._slots and not self._narrow:
            self._wave, self._at_once, self._rooms.waves = wave, 2, True

    def _advance(self, members: list[Running], columns: Columns, seconds: float) -> None:
        """Take in the metrics of a launch, each member up to the step at which its job ends."""
        required = self._options.required
        once = any(member.once for member in members)
        for member in members if once else members[:1]:
            first = as_metrics(row_of(columns, 0, 0), required, member.once)  # says what is missing
        named = {name or next(iter(first)): values for name, values in columns.items()}
        series = {name: values.T.tolist() for name, values in named.items()}
        finite = np.logical_and.reduce([np.isfinite(named[name]) for name in required if name in named])
        whole = np.all(finite, axis=0).tolist()  # nothing ends these members before the launch does
        for index, member in enumerate(members):
            values = {name: of_all[index] for name, of_all in series.items()}
            count = len(next(iter(values.values())))
            if once or self._options.target is not None or not whole[index]:
                count = self._taken(member, values)
            for name, known in values.items():
                member.pending.setdefault(name, []).extend(known[:count])
            member.steps += count
            member.step += count
            member.seconds += seconds
            member.ended = member.ended or self._stopping or member.step >= member.job.until

    def _taken(self, member: Running, values: dict[str, list[float]]) -> int:
        """How many steps of a launch count: up to a value that is not finite, or to the target."""
        count = len(next(iter(values.values())))
        for name, known in member.once.items():
            values[name] = _carried(values.get(name, [math.nan] * count), known)
        for step in range(count):
            row = {name: known[step] for name, known in values.items()}
            member.broken = not all(math.isfinite(row[name]) for name in self._options.required)
            member.once = {name: row[name] for name in member.once}
            target = self._options.target
            member.ended = member.broken or (target is not None and target.reached_by_step(row.get))
            if member.ended:
                return step + 1
        return count

    # -- reports

    def _report(self, launch: _Launch) -> None:
        """Say how it goes, where it is time for it; what is to be saved is copied and written in the background."""
        room, now = launch.room, perf_counter()
        due = [m for m in launch.members if m.ended or now - m.reported >= self._options.report_seconds]
        rows = {member: row for row, member in enumerate(launch.members)}
        saving = [member for member in due if self._is_saved(member, now)]
        saved = self._saved(launch, [rows[member] for member in saving]) if saving else None
        plain, held = _Held([]), _Held([], saved)
        for member in due:
            member.reported = now
            written = member in saving
            if member.ended:
                member.gone = True
                del room.running[member.row]
            if member.ended and not member.broken:
                idle = Resident(member.row, member.job.ask, 0 if written else member.unsaved + 1)
                room.resident[member.job.trial, member.step] = idle
            failed = member.ended and not member.broken and member.step < member.job.until
            report = member.report(done=member.ended, failure=INTERRUPTED if failed else None)
            (held if written else plain).reports.append(report)
        self._outbox += [one for one in (plain, held) if one.reports]

    def _is_saved(self, member: Running, now: float) -> bool:
        """Whether the state of a member is to be written now."""
        if self._checkpoints is None or member.broken:
            return False
        if not member.ended:
            due = now - member.saved >= self._options.checkpoint_seconds
            member.saved = now if due else member.saved
            return due
        whole = member.step >= member.job.until and member.step != self._last
        return not whole or member.unsaved + 1 >= self._save_every

    def _saved(self, launch: _Launch, rows: list[int]) -> Future[list[Saved]]:
        """Have the states in these rows of a launch written."""
        places = [(launch.members[row].job.trial, launch.members[row].step) for row in rows]
        stack = launch.stack
        if launch.whole or len(rows) < len(launch.members):
            try:
                stack = self._rooms.copies(stack, rows)
            except Exception as error:
                if not full(error):
                    raise
                parts = in_parts(lambda some: self._rooms.copies(stack, some).trees()[: len(some)], rows)
                trees = [tree for _, part in parts for tree in part]
                return self._writer.submit(self._write_all, places, lambda: trees)
        return self._writer.submit(self._write_all, places, stack.trees)

    def _write_all(self, places: list[Place], trees: Callable[[], list[Any]]) -> list[Saved]:
        """In the thread that writes."""
        return [self._write(trial, step, tree) for (trial, step), tree in zip(places, trees(), strict=False)]

    def _write(self, trial: int, step: int, tree: Any) -> Saved:
        assert self._checkpoints is not None
        return self._checkpoints.save(trial, step, {"step": step, "state": tree})

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

    def _give_up(self, room: Room, members: Iterable[Running], failure: Failure) -> None:
        """These members have failed."""
        for member in members:
            if room.running.get(member.row) is member:
                del room.running[member.row]
        self._fail(members, failure)

    def _fail(self, members: Iterable[Running], failure: Failure) -> None:
        """The jobs of these members end with an error."""
        for member in members:
            if member.gone:
                continue
            member.gone = True
            if member.steps and member.step >= member.job.until:
                member.forget_last_step()
            self._outbox.append(_Held([member.report(done=True, failure=failure)]))


def _carried(values: list[float], known: float | None) -> list[float]:
    """Values of a metric that is measured once: what is not finite is the value before."""
    carried = []
    for value in values:
        known = value if known is None or math.isfinite(value) else known
        carried.append(known)
    return carried


def _timing(stack: Stack, members: Members) -> Callable[[int, int], float]:
    """A function of rows and a chunk: the seconds that a step of a member takes, on copies of the first rows."""

    def timed(rows: int, chunk: int) -> float:
        copies = stack.take(range(rows))
        begun, seconds, count = 0.0, 0.0, 0
        while count < 2 or (seconds < _TIMED and count < STEPS):  # the first one is compiled
            begun = perf_counter() if count == 1 else begun
            copies.run(members.take(range(rows)), 1, chunk)()
            seconds, count = perf_counter() - begun if count else 0.0, count + 1
        return seconds / (count - 1) / rows

    return timed


def _quickest(timed: Callable[[int, int], float], rows: int, joint: float, steps: int) -> int:
    """The members of a launch: all of them, or a half or a quarter, so that the driver has work of one wave alone to do
    while nothing trains. ``joint`` is the time of a member's step where all are trained together.
    """
    seconds = {rows: joint * steps + _DRIVER}
    for wave in (rows // 2, rows // 4):
        if wave >= WAVE:
            seconds[wave] = timed(wave, wave) * steps + _DRIVER * wave / rows
    return min(seconds, key=lambda wave: seconds[wave])


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
    """The executor for a study: as many members as its scheduler's population, and the last step from the scheduler.

    Raises:
        ValueError: the task does not go with the study; the message says what to do.
    """
    task.check()
    scheduler = study.scheduler
    _check_names(task, study.space)
    if scheduler.members is not None:
        _check_shapes(task, study.space, options)
    keep = study.startable if options.root is None else study.needed  # without a disk only jobs can need a state
    return Vectorised(task, options, members=scheduler.members, keep=keep, last=scheduler.horizon)


def _check_names(task: StackedTask, space: Space) -> None:
    """ValueError where ``static`` names what the space has not."""
    names = list(_names(space))
    for name in task.declared:
        if name not in names:
            raise ValueError(f"static={task.declared!r}: the space has no {name!r}; it has {', '.join(names)}")


def _names(space: Space) -> Iterator[str]:
    """All parameters, those of the branches among them."""
    for name, domain in space.items():
        yield name
        for branch in getattr(domain, "branches", ()):
            yield from () if branch is None else _names(branch)


def _check_shapes(task: StackedTask, space: Space, options: Options) -> None:
    """ValueError where states differ in shape by a hyperparameter that a population may change as it trains.

    Some configurations are drawn; those that agree in what is fixed must have one layout.
    """
    fixed = sorted(space.fixed)
    rng = np.random.default_rng(0)
    layouts: dict[Group, Layout] = {}
    firsts: dict[tuple[Any, ...], Group] = {}
    for _ in range(_DRAWS):
        try:
            group = task.group(options.values(space.sample(rng)))
            layouts[group] = layouts.get(group) or task.layout(group)
        except Exception:  # that it can't be made is said when it is trained
            continue
        first = firsts.setdefault(tuple(group.example.get(name) for name in fixed), group)
        if layouts[first] != layouts[group]:
            differ = [name for name in {**first.static, **group.static} if name not in fixed]
            differ = [name for name in differ if first.example.get(name) != group.example.get(name)]
            raise ValueError(
                f"{' or '.join(differ)} decides the shapes of the states, and a population changes hyperparameters "
                f"while it trains. {FIXED}"
            )
