"""Where the members of a population are: who has which row of which stack, and with what state a job begins."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from time import perf_counter
from typing import Any, TypeVar

from tunesmith.checkpoints import CheckpointError, Checkpoints, Saved
from tunesmith.execution.base import Failure, Report
from tunesmith.execution.session import explain
from tunesmith.execution.stacks import FIXED, Group, Layout, Members, Stack, StackedTask
from tunesmith.study import Job

T = TypeVar("T")
R = TypeVar("R")

Place = tuple[int, int]  # trial and step

LOST = Failure("the states on the device were lost when another member failed", "lost")


@dataclass(eq=False, slots=True)
class Running:
    """A job in training."""

    job: Job
    group: Group
    row: int = -1
    step: int = 0
    pending: dict[str, list[float]] = field(default_factory=dict)  # the metrics of the last steps, not yet reported
    steps: int = 0  # so many of them
    seconds: float = 0.0
    warning: str = ""
    reported: float = 0.0  # when there was a report or a checkpoint the last time
    saved: float = 0.0
    once: dict[str, float | None] = field(default_factory=dict)
    unsaved: int = 0  # jobs since these weights were on disk
    launched: bool = False  # a program that trains this member is on its way
    company: float = math.inf  # trained with at most so many, since a launch with more has failed
    ended: bool = False
    broken: bool = False  # the last step gave values that are not finite
    gone: bool = False  # its last report is under way

    def report(self, saved: Saved | None = None, done: bool = False, failure: Failure | None = None) -> Report:
        """Everything so far; what follows is a new report."""
        start = self.step - self.steps
        made = Report(self.job.ask, start, self.pending, self.seconds, saved, done, failure, self.warning)
        self.pending, self.steps, self.seconds, self.warning = {}, 0, 0.0, ""
        return made

    def forget_last_step(self) -> None:
        """Its state is lost: told in full, the job would count as done."""
        self.pending = {name: values[:-1] for name, values in self.pending.items()}
        self.step, self.steps = self.step - 1, self.steps - 1


def together(group: Group, running: Sequence[Running]) -> Members:
    """Members in training, as a stack takes them."""
    jobs = [member.job for member in running]
    return Members(group, [job.config for job in jobs], [job.seed for job in jobs], [member.step for member in running])


@dataclass(slots=True)
class Resident:
    """A state that rests on the device: nobody trains it, but a later job may begin with it."""

    row: int
    ask: int  # the job that was told it
    unsaved: int  # jobs since these weights were on disk


@dataclass(slots=True)
class Parked:
    """A state that was copied out of its row, which was needed for another one: a row of a small stack, or a tree."""

    stack: Stack | None
    trees: Future[list[Any]] | None
    index: int
    ask: int
    unsaved: int

    def tree(self) -> Any:
        """The state on the host."""
        if self.stack is not None:
            return self.stack.take([self.index]).trees()[0]
        assert self.trees is not None
        return self.trees.result()[self.index]


@dataclass(eq=False, slots=True)
class Room:
    """The stack of one layout, and who is in which row. It has none while nobody trains here."""

    stack: Stack | None = None
    running: dict[int, Running] = field(default_factory=dict)  # by row
    resident: dict[Place, Resident] = field(default_factory=dict)  # the longest idle first
    parked: dict[Place, Parked] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """How many states have room here."""
        return 0 if self.stack is None else self.stack.rows

    def holds(self, place: Place) -> bool:
        """Whether this state is in memory."""
        return place in self.resident or place in self.parked


class Rooms:
    """All stacks, one a layout.

    Args:
        task: makes the stacks.
        slots: how many members are trained at once.
        checkpoints: where states are, too.
        keep: the states that may still be needed, if anybody knows.
        writer: moves states to the host.
        fail: is told of members that can't begin or go on, and why.

    Attributes:
        waves: members are seated in several turns, so that a state may be copied after its own member has gone on.
    """

    def __init__(
        self,
        task: StackedTask,
        slots: int,
        checkpoints: Checkpoints | None,
        keep: Callable[[], Iterable[Place]] | None,
        writer: ThreadPoolExecutor,
        fail: Callable[[Iterable[Running], Failure], None],
    ) -> None:
        self._task, self._slots, self._checkpoints = task, slots, checkpoints
        self._keep, self._writer, self._fail = keep, writer, fail
        self._rooms: dict[Layout, Room] = {}
        self._coming: set[Place] = set()  # what the jobs that are being seated begin with
        self._needed: set[Place] = set()
        self._judged: set[Place] = set()  # what was in memory when `keep` was asked the last time
        self._left = slots  # so many states have left their rows since then
        self.waves = False

    def groups(self) -> dict[Group, Room]:
        """The groups that have members to launch, and where they are."""
        return {
            member.group: room
            for room in self._rooms.values()
            for member in room.running.values()
            if not member.launched
        }

    def clear(self) -> None:
        """Give up all states."""
        self._rooms.clear()

    def lose(self, room: Room) -> None:
        """The stack is lost, and with it what its members have trained: their jobs are given back."""
        lost = list(room.running.values())
        room.stack = None
        room.running.clear()
        room.resident.clear()
        self._fail(lost, LOST)

    # -- states that may still be needed

    def unsaved(self, needed: set[Place]) -> Iterator[tuple[int, Place, Any]]:
        """What is needed and in memory alone: the ask that was told it, trial and step, and the state on the host.

        It counts as saved when the next one is asked for.
        """
        for room in self._rooms.values():
            idle = [(place, one) for place, one in room.resident.items() if place in needed and one.unsaved]
            idle.sort(key=lambda item: item[1].row)
            for some, trees in in_parts(partial(self._on_host, room), [one for _, one in idle]):
                for one, tree in zip(some, trees, strict=True):
                    place, _ = idle.pop(0)
                    yield one.ask, place, tree
                    one.unsaved = 0
            for place, parked in room.parked.items():
                if place in needed and parked.unsaved:
                    yield parked.ask, place, parked.tree()
                    parked.unsaved = 0

    def copies(self, stack: Stack, rows: Sequence[int]) -> Stack:
        """These rows in a stack of their own, which has more of them where that saves compiling a program."""
        fill = self._task.capacity(len(rows), self._slots) - len(rows)
        return stack.take([*rows, *[rows[0]] * fill])

    def _on_host(self, room: Room, idle: Sequence[Resident]) -> list[Any]:
        assert room.stack is not None
        return self.copies(room.stack, [one.row for one in idle]).trees()[: len(idle)]

    def _is_needed(self, place: Place) -> bool:
        """Whether a job or the user may still need this state."""
        return place in self._needed or place in self._coming or (self._keep is not None and place not in self._judged)

    def _judge(self, leaving: Iterable[Place]) -> None:
        """Ask what is still needed: with waves once a round, since that takes its time; what is newer is needed."""
        places = set(leaving)
        self._left += len(places)
        if self._keep is not None and (self._left >= self._slots or not self.waves):
            self._left, self._needed, self._judged = 0, set(self._keep()), places
            for room in self._rooms.values():
                self._judged.update(room.resident, room.parked)

    def _tidy(self, used: Iterable[Layout]) -> None:
        """Free the stacks in which nobody trains, and the states that nobody needs any more."""
        for layout, room in list(self._rooms.items()):
            unknown = self._keep is None and any(idle.unsaved for idle in room.resident.values())
            if room.running or layout in used or unknown:
                continue
            self._left = self._slots
            self._park(room, dict(room.resident), all_of_them=True)
            room.resident.clear()
            room.stack = None
            if not room.parked:
                del self._rooms[layout]

    def _park(self, room: Room, leaving: dict[Place, Resident], all_of_them: bool = False) -> None:
        """Copy the states that leave their rows and are needed: at least those that are not on disk."""
        wanted = {place: idle for place, idle in leaving.items() if idle.unsaved or all_of_them}
        if not wanted and not room.parked:
            return
        self._judge(leaving)
        room.parked = {place: parked for place, parked in room.parked.items() if self._is_needed(place)}
        rest = {place: idle for place, idle in wanted.items() if self._is_needed(place)}
        crowded = len(room.parked) + len(rest) > 2 * self._slots
        if crowded:
            rest = {place: idle for place, idle in rest.items() if idle.unsaved}
        if not rest or room.stack is None:
            return
        rest = dict(sorted(rest.items(), key=lambda item: item[1].row))  # on several devices, each copies its own
        try:
            stack = self.copies(room.stack, [idle.row for idle in rest.values()])
        except Exception as error:
            if not full(error):
                raise
            self._to_host(room, {place: idle for place, idle in rest.items() if idle.unsaved})
            return
        trees = self._writer.submit(stack.trees) if crowded else None
        for index, (place, idle) in enumerate(rest.items()):
            room.parked[place] = Parked(None if trees else stack, trees, index, idle.ask, idle.unsaved)

    def _to_host(self, room: Room, leaving: dict[Place, Resident]) -> None:
        """The same without another byte on the device, or nearly so."""
        for place, idle in leaving.items():
            room.parked[place] = Parked(None, _done(self._on_host(room, [idle])), 0, idle.ask, idle.unsaved)

    # -- rows

    def seat(self, jobs: Sequence[Job]) -> list[Job]:
        """Give every job that has come in a row with the state that it begins with.

        Returns:
            Those for which there is no memory until others have ended.
        """
        if not jobs:
            return []
        self._coming = {place for job in jobs for place in _places(job)}
        groups: dict[Group, list[Running]] = {}
        now = perf_counter()
        for job in jobs:
            member = Running(job, self._task.group(job.config), reported=now, saved=now, once=dict(job.once))
            groups.setdefault(member.group, []).append(member)
        arriving: dict[Layout, list[Running]] = {}
        for group, members in groups.items():
            layout, known = self._layout(group, members)
            if layout is not None:
                arriving.setdefault(layout, []).extend(known)
        self._tidy(arriving)
        left: list[Job] = []
        for layout, members in arriving.items():
            room = self._rooms.setdefault(layout, Room())
            try:
                left += self._seat_in(room, members)
            except Exception as error:
                for member in members:
                    room.running.pop(member.row, None)
                self._fail(members, explain(error))
            if room.stack is not None and room.stack.broken:
                self.lose(room)
        return left

    def _layout(self, group: Group, members: list[Running]) -> tuple[Layout | None, list[Running]]:
        """What the states of some members look like, as the first of them shows that can begin, and who is left."""
        for number, member in enumerate(members):
            try:
                return self._task.layout(replace(group, example=member.job.config)), members[number:]
            except Exception as error:
                if not self._task.may_be_one(error):
                    self._fail(members[number:], explain(error))
                    break
                self._fail([member], explain(error))
        return None, []

    def _seat_in(self, room: Room, members: list[Running]) -> list[Job]:
        """Members go on in their rows; then forks are copied, all at once; then others are loaded, or begin.

        Returns:
            The jobs that have found no row.
        """
        here = dict(room.resident)
        going = [member for member in members if (member.job.trial, member.job.start) in here]
        moving = [member for member in members if (member.job.trial, member.job.start) not in here]
        leaving: dict[Place, Resident] = {}
        for member in going:
            place = (member.job.trial, member.job.start)
            leaving[place] = idle = room.resident.pop(place)
            self._take_row(room, member, idle.row, member.job.start, idle.unsaved)
        if moving:
            self._grow(room, len(moving), moving[0].group)
        rows = self._empty_rows(room, len(moving), leaving)
        self._park(room, leaving, all_of_them=self.waves and self._keep is not None)
        copies: list[tuple[Running, Resident]] = []
        fresh: list[Running] = []
        for member, row in zip(moving, rows, strict=False):
            places = _places(member.job)
            source = here.get(places[-1]) if len(places) > 1 else None
            if source is None:
                self._take_row(room, member, row, 0, 0)
                fresh.append(member)
            else:
                self._take_row(room, member, row, member.job.start, source.unsaved)
                copies.append((member, source))
        self._copy(room, copies)
        self._begin(room, [one for one in self._unparked(room, fresh) if not self._restored(room, one)])
        return [member.job for member in moving[len(rows) :]]

    def _take_row(self, room: Room, member: Running, row: int, step: int, unsaved: int) -> None:
        member.row, member.step, member.unsaved = row, step, unsaved
        room.running[row] = member

    def _grow(self, room: Room, count: int, group: Group) -> None:
        """Make the stack so large that so many new members find rows, or as large as the memory allows.

        Raises:
            Exception: there is not even memory for one, and nobody trains whose end would give some.
        """
        others = len(room.resident) if self.waves else 0  # most of them go on in their rows with the next waves
        size = self._task.capacity(min(len(room.running) + count + others, self._slots), self._slots)
        while size > room.rows:
            try:
                larger = self._task.stack(group, size)
                if room.stack is not None:
                    larger.copy(range(room.rows), room.stack, range(room.rows))
                room.stack = larger
            except Exception as error:
                if not full(error):
                    raise
                if self._offload():
                    continue
                smaller = self._task.capacity(max(1, size // 2), self._slots)
                if smaller < size:
                    size = smaller
                elif room.rows or any(other.running for other in self._rooms.values()):
                    return
                else:
                    raise

    def _offload(self) -> bool:
        """Move to the host what was copied out of its row. Whether there was anything."""
        held = [parked for room in self._rooms.values() for parked in room.parked.values() if parked.stack is not None]
        for parked in held:
            parked.trees, parked.stack, parked.index = _done([parked.tree()]), None, 0
        return bool(held)

    def _empty_rows(self, room: Room, count: int, leaving: dict[Place, Resident]) -> list[int]:
        """So many rows for new members, if there are: free ones, then those of states that are idle for long, which
        then are among those that leave.
        """
        used = room.running.keys() | {idle.row for idle in room.resident.values()}
        rows = [row for row in range(room.rows) if row not in used][:count]
        for place in list(room.resident)[: count - len(rows)]:
            leaving[place] = room.resident.pop(place)
            rows.append(leaving[place].row)
        return rows

    def _copy(self, room: Room, copies: list[tuple[Running, Resident]]) -> None:
        """From rows to rows, as if all at once."""
        if not copies or room.stack is None:
            return
        rows, sources = [member.row for member, _ in copies], [source.row for _, source in copies]
        try:
            room.stack.copy(rows, room.stack, sources)
        except Exception as error:
            if not full(error) or room.stack.broken:
                raise
            trees = [self._on_host(room, [source])[0] for _, source in copies]
            for row, tree in zip(rows, trees, strict=True):
                room.stack.load([row], [tree])

    def _unparked(self, room: Room, members: list[Running]) -> list[Running]:
        """Put back what was copied out of its row, all at once where it lies in one stack; and the others."""
        stacks: dict[int, list[tuple[Running, Parked]]] = {}
        left = []
        for member in members:
            parked = next((room.parked[place] for place in _places(member.job) if place in room.parked), None)
            if parked is None:
                left.append(member)
            else:
                stacks.setdefault(id(parked.stack), []).append((member, parked))
        for some in stacks.values():
            stack = some[0][1].stack
            for member, parked in some:
                member.step, member.unsaved = member.job.start, parked.unsaved
            rows = [member.row for member, _ in some]
            assert room.stack is not None
            try:
                if stack is not None:
                    room.stack.copy(rows, stack, [parked.index for _, parked in some])
                    continue
            except Exception as error:
                if not full(error) or room.stack.broken:
                    raise
            for row, (_, parked) in zip(rows, some, strict=True):
                room.stack.load([row], [parked.tree()])
        return left

    def _restored(self, room: Room, member: Running) -> bool:
        """Load the state that a member goes on from, as near to the start of its job as there is one."""
        job = member.job
        if job.start == 0:
            return False
        assert room.stack is not None
        try:
            for place in _places(job):
                if any(other.holds(place) for other in self._rooms.values()):
                    raise ValueError(
                        f"trial {job.trial} can't go on from the weights of trial {place[0]}: with its hyperparameters "
                        f"({member.group}) they have other shapes. {FIXED}"
                    )
            for source in job.sources if self._checkpoints is not None else ():
                try:
                    tree = self._checkpoints.load(source.where, source.digest)  # type: ignore[union-attr]
                except CheckpointError as error:
                    member.warning += f"{error}; going on from an earlier state\n"
                    continue
                room.stack.load([member.row], [tree["state"]])  # type: ignore[index]
                member.step = source.step
                return True
        except Exception as error:
            if room.stack.broken:
                raise
            self._fail([room.running.pop(member.row)], explain(error))
            return True
        return False

    def _begin(self, room: Room, members: Iterable[Running]) -> None:
        """States at step 0."""
        groups: dict[Group, list[Running]] = {}
        for member in members:
            groups.setdefault(member.group, []).append(member)
        for group, some in groups.items():
            self._init(room, group, some)

    def _init(self, room: Room, group: Group, members: list[Running]) -> None:
        """The same for members of a group. Where that fails, halves of them show whose fault it is."""
        assert room.stack is not None
        try:
            room.stack.init([member.row for member in members], together(group, members))
        except Exception as error:
            if room.stack.broken:
                raise
            if len(members) == 1 or not (full(error) or self._task.may_be_one(error)):
                self._fail([room.running.pop(member.row) for member in members], explain(error))
                return
            middle = len(members) // 2
            self._init(room, group, members[:middle])
            self._init(room, group, members[middle:])


def full(error: BaseException) -> bool:
    """Whether a device or the host had not the memory."""
    return explain(error).kind == "out-of-memory"


def in_parts(act: Callable[[list[T]], R], items: list[T]) -> Iterator[tuple[list[T], R]]:
    """Act on all items at once; where the memory does not suffice on halves of them, one after the other."""
    if not items:
        return
    try:
        result = act(items)
    except Exception as error:
        if len(items) == 1 or not full(error):
            raise
        middle = len(items) // 2
        yield from in_parts(act, items[:middle])
        yield from in_parts(act, items[middle:])
    else:
        yield items, result


def _done(trees: list[Any]) -> Future[list[Any]]:
    future: Future[list[Any]] = Future()
    future.set_result(trees)
    return future


def _places(job: Job) -> list[Place]:
    """Where the state is that a job begins with: the trial's own, and where it begins as a fork its parent's."""
    own = (job.trial, job.start)
    return [own] if job.parent is None or job.forked != job.start else [own, (job.parent, job.start)]
