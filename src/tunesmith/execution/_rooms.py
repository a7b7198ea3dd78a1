"""Where the members of a population are: who has which row of which stack, and with what state a job begins."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from tunesmith.checkpoints import CheckpointError, Checkpoints, Saved
from tunesmith.execution.base import Failure, Report
from tunesmith.execution.stacks import Group, Layout, Members, Stack, StackedTask
from tunesmith.study import Job

Place = tuple[int, int]  # trial and step


@dataclass(eq=False)
class Running:
    """A job in training."""

    job: Job
    group: Group
    row: int = -1
    step: int = 0
    pending: list[dict[str, float]] = field(default_factory=list)  # the metrics of the last steps, not yet reported
    seconds: float = 0.0
    note: str = ""
    reported: float = 0.0  # when there was a report or a checkpoint the last time
    saved: float = 0.0
    once: dict[str, float | None] = field(default_factory=dict)
    unsaved: int = 0  # jobs since these weights were on disk
    ended: bool = False
    broken: bool = False  # the last step gave values that are not finite

    def report(self, saved: Saved | None = None, done: bool = False, failure: Failure | None = None) -> Report:
        """Everything so far; what follows is a new report."""
        names = dict.fromkeys(name for row in self.pending for name in row)
        metrics = {name: [row.get(name, math.nan) for row in self.pending] for name in names}
        start = self.step - len(self.pending)
        made = Report(self.job.ask, start, metrics, self.seconds, saved, done, failure, self.note)
        self.pending, self.seconds, self.note = [], 0.0, ""
        return made


def together(group: Group, running: Sequence[Running]) -> Members:
    """Members in training, as a stack takes them."""
    jobs = [member.job for member in running]
    return Members(group, [job.config for job in jobs], [job.seed for job in jobs], [member.step for member in running])


@dataclass
class Resident:
    """A state that rests on the device: nobody trains it, but a later job may begin with it."""

    row: int
    unsaved: int  # jobs since these weights were on disk


@dataclass
class Parked:
    """A state that was copied out of its row, which was needed for another one: a row of a small stack, or a tree."""

    stack: Stack | None
    trees: Future[list[Any]] | None
    index: int
    unsaved: int


@dataclass(eq=False)
class Room:
    """The stack of one layout, and who is in which row."""

    stack: Stack
    running: dict[int, Running] = field(default_factory=dict)  # by row
    resident: dict[Place, Resident] = field(default_factory=dict)  # the longest idle first
    parked: dict[Place, Parked] = field(default_factory=dict)

    def holds(self, place: Place) -> bool:
        """Whether this state is in memory."""
        return place in self.resident or place in self.parked


class Rooms:
    """All stacks, one a layout.

    Args:
        task: makes the stacks.
        slots: how many members are trained at once.
        checkpoints: where states are, too.
        keep: the states that a later job may start from, if anybody knows.
        writer: moves states to the host.
        fail: is told of members that can't begin, and why.
    """

    def __init__(
        self,
        task: StackedTask,
        slots: int,
        checkpoints: Checkpoints | None,
        keep: Callable[[], Iterable[Place]] | None,
        writer: ThreadPoolExecutor,
        fail: Callable[[Iterable[Running], BaseException], None],
    ) -> None:
        self._task, self._slots, self._checkpoints = task, slots, checkpoints
        self._keep, self._writer, self._fail = keep, writer, fail
        self._rooms: dict[Layout, Room] = {}

    def groups(self) -> dict[Group, Room]:
        """The groups that have members in training, and where they are."""
        return {member.group: room for room in self._rooms.values() for member in room.running.values()}

    def clear(self) -> None:
        """Give up all states."""
        self._rooms.clear()

    def drop(self, room: Room) -> None:
        """Forget a stack, whose states are lost."""
        self._rooms = {layout: other for layout, other in self._rooms.items() if other is not room}

    def seat(self, jobs: Sequence[Job]) -> None:
        """Give every job that has come in a row with the state that it begins with."""
        groups: dict[Group, list[Running]] = {}
        for job in jobs:
            now = perf_counter()
            member = Running(job, self._task.group(job.config), reported=now, saved=now, once=dict(job.once))
            groups.setdefault(member.group, []).append(member)
        arriving: dict[Layout, list[Running]] = {}
        for group, members in groups.items():
            try:
                arriving.setdefault(self._task.layout(group), []).extend(members)
            except Exception as error:
                self._fail(members, error)
        for layout, members in arriving.items():
            room = self._rooms.get(layout)
            if room is None:
                size = self._task.capacity(len(members), self._slots)
                room = self._rooms[layout] = Room(self._task.stack(members[0].group, size))
            self._seat_in(room, members)

    def _seat_in(self, room: Room, members: list[Running]) -> None:
        """Members go on in their rows; then forks are copied, all at once; then others are loaded, or begin."""
        here = dict(room.resident)
        moving = [member for member in members if (member.job.trial, member.job.start) not in here]
        going = [((m.job.trial, m.job.start), m) for m in members if (m.job.trial, m.job.start) in here]
        for place, member in going:
            idle = room.resident.pop(place)
            self._take_row(room, member, idle.row, member.job.start, idle.unsaved)
        self._grow(room, len(moving), members[0].group)
        rows, evicted = self._empty_rows(room, len(moving))
        self._park(room, {place: here[place] for place in [*(place for place, _ in going), *evicted]})
        copies: list[tuple[int, int]] = []
        fresh: list[Running] = []
        for member, row in zip(moving, rows, strict=True):
            source = here.get(places[-1]) if len(places := _places(member.job)) > 1 else None
            if source is None:
                self._take_row(room, member, row, 0, 0)
                fresh.append(member)
            else:
                self._take_row(room, member, row, member.job.start, source.unsaved)
                copies.append((row, source.row))
        if copies:
            to, origin = zip(*copies, strict=True)
            room.stack.copy(to, room.stack, origin)
        self._begin(room, [member for member in fresh if not self._restored(room, member)])

    def _take_row(self, room: Room, member: Running, row: int, step: int, unsaved: int) -> None:
        member.row, member.step, member.unsaved = row, step, unsaved
        room.running[row] = member

    def _grow(self, room: Room, count: int, group: Group) -> None:
        """Make the stack so large that so many new members find rows."""
        wanted, rows = len(room.running) + count, range(room.stack.rows)
        if wanted > len(rows):
            larger = self._task.stack(group, self._task.capacity(wanted, self._slots))
            larger.copy(rows, room.stack, rows)
            room.stack = larger

    def _empty_rows(self, room: Room, count: int) -> tuple[list[int], list[Place]]:
        """So many rows for new members: free ones, then those of states that are idle for long; and which these are."""
        used = room.running.keys() | {idle.row for idle in room.resident.values()}
        free = [row for row in range(room.stack.rows) if row not in used]
        evicted = list(room.resident)[: max(0, count - len(free))]
        return [*free, *(room.resident.pop(place).row for place in evicted)][:count], evicted

    def _park(self, room: Room, leaving: dict[Place, Resident]) -> None:
        """Copy the states that leave their rows and are needed, but not on disk; many of them go to the host."""
        unsaved = {place: idle for place, idle in leaving.items() if idle.unsaved}
        if self._keep is None or not (unsaved or room.parked):
            return
        needed = set(self._keep())
        room.parked = {place: parked for place, parked in room.parked.items() if place in needed}
        rest = {place: idle for place, idle in unsaved.items() if place in needed}
        if not rest:
            return
        rest = dict(sorted(rest.items(), key=lambda item: item[1].row))  # on several devices, each copies its own
        stack = room.stack.take([idle.row for idle in rest.values()])
        trees = self._writer.submit(stack.trees) if len(room.parked) + len(rest) > 2 * self._slots else None
        for index, (place, idle) in enumerate(rest.items()):
            room.parked[place] = Parked(None if trees else stack, trees, index, idle.unsaved)

    def _restored(self, room: Room, member: Running) -> bool:
        """Load the state that a member goes on from, as near to the start of its job as there is one."""
        job = member.job
        if job.start == 0:
            return False
        try:
            for place in _places(job):
                if place in room.parked:
                    parked = room.parked[place]
                    if parked.stack is not None:
                        room.stack.copy([member.row], parked.stack, [parked.index])
                    elif parked.trees is not None:
                        room.stack.load([member.row], [parked.trees.result()[parked.index]])
                    member.step, member.unsaved = job.start, parked.unsaved
                    return True
                if any(other.holds(place) for other in self._rooms.values()):
                    raise ValueError(
                        f"trial {job.trial} can't go on from the weights of trial {place[0]}: with its hyperparameters "
                        f"({member.group}) they have other shapes; let the space hold what decides about shapes fixed"
                    )
            for source in job.sources if self._checkpoints is not None else ():
                try:
                    tree = self._checkpoints.load(source.where, source.digest)  # type: ignore[union-attr]
                except CheckpointError as error:
                    member.note += f"{error}; going on from an earlier state\n"
                    continue
                room.stack.load([member.row], [tree["state"]])  # type: ignore[index]
                member.step = source.step
                return True
        except Exception as error:
            self._fail([room.running.pop(member.row)], error)
            return True
        return False

    def _begin(self, room: Room, members: Iterable[Running]) -> None:
        """States at step 0."""
        groups: dict[Group, list[Running]] = {}
        for member in members:
            groups.setdefault(member.group, []).append(member)
        for group, some in groups.items():
            try:
                room.stack.init([member.row for member in some], together(group, some))
            except Exception as error:
                self._fail([room.running.pop(member.row) for member in some], error)


def _places(job: Job) -> list[Place]:
    """Where the state is that a job begins with: the trial's own, and where it begins as a fork its parent's."""
    own = (job.trial, job.start)
    return [own] if job.parent is None or job.forked != job.start else [own, (job.parent, job.start)]
