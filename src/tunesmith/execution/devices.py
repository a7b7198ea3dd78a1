"""What ``devices=`` means: slots for worker processes, and the environment that ties each to its device."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Device = str | int | tuple[int | str, float]

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_GPUS = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Slot:
    """A place where a worker process runs: ``gpu`` None lets it see every GPU, "" none; ``cores`` None is its share."""

    gpu: str | None = None
    cores: int | None = None

    def environment(self, slots: int, parent: Mapping[str, str] = os.environ) -> dict[str, str]:
        """What a worker's environment has besides its parent's, if ``slots`` workers share the machine.

        Numeric libraries get as many threads as the worker has cores, unless the user has set ``OMP_NUM_THREADS``.
        """
        found = {} if self.gpu is None else {_GPUS: self.gpu}
        if self.cores is not None or _THREADS[0] not in parent:
            found |= dict.fromkeys(_THREADS, str(self.cores or max(1, cores() // slots)))
        return found


def cores() -> int:
    """CPU cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1


def parse(
    devices: Device | Sequence[Device] | None, workers: int, parent: Mapping[str, str] = os.environ
) -> list[Slot]:
    """The slots for some devices.

    Args:
        devices: each one of ``"cpu"``, ``"cpu:4"`` (four cores), a GPU as ``0`` or ``"cuda:0"``, a part of one as
            ``(0, 0.5)`` or ``"cuda:0:0.5"``, which makes two slots on it. None: ``workers`` slots that see every
            device.
        workers: how many, where there are no devices; otherwise 1 or the number of slots.
        parent: the environment; the ids count within its ``CUDA_VISIBLE_DEVICES``, where that is set.

    Raises:
        ValueError: a device is none of these, or the numbers do not fit.
    """
    if workers < 1:
        raise ValueError(f"workers={workers} must be at least 1")
    if devices is None:
        return [Slot()] * workers
    if not isinstance(devices, str | int | Sequence):
        devices = [devices]
    if isinstance(devices, str | int) or (
        isinstance(devices, tuple) and len(devices) == 2 and isinstance(devices[1], float)
    ):
        devices = [devices]  # type: ignore[list-item]
    slots = [slot for device in devices for slot in _slots(device, parent)]
    if not slots:
        raise ValueError("devices=[] leaves no place to train")
    if workers not in (1, len(slots)):
        raise ValueError(f"workers={workers}, but devices={devices} are {len(slots)} slots: leave one of the two out")
    return slots


def _slots(device: Device, parent: Mapping[str, str]) -> list[Slot]:
    name, fraction = (device[0], device[1]) if isinstance(device, tuple) else (device, 1.0)
    kind, *rest = ["cuda", str(name)] if isinstance(name, int) else str(name).split(":")
    try:
        if kind == "cpu" and len(rest) <= 1 and fraction == 1:
            return [Slot("", _positive(rest[0]) if rest else None)]
        if kind == "cuda" and 1 <= len(rest) <= 2 and int(rest[0]) >= 0:
            return [Slot(_visible(int(rest[0]), parent))] * _parts(float(rest[1]) if len(rest) > 1 else fraction)
    except ValueError as error:
        raise ValueError(f"device {device!r}: {error}") from error
    raise ValueError(f'device {device!r} is none of "cpu", "cpu:4", 0, "cuda:0", (0, 0.5), "cuda:0:0.5"')


def _positive(text: str) -> int:
    if int(text) < 1:
        raise ValueError("a slot has at least one core")
    return int(text)


def _parts(fraction: float) -> int:
    if not 0 < fraction <= 1:
        raise ValueError(f"the part {fraction} must be in (0, 1]")
    return int(1 / fraction + 1e-9)


def _visible(index: int, parent: Mapping[str, str]) -> str:
    """The name of GPU ``index`` for a child, where the parent itself may see only some."""
    if _GPUS not in parent:
        return str(index)
    names = [name for name in parent[_GPUS].split(",") if name.strip()]
    if index >= len(names):
        raise ValueError(f"there is no GPU {index}, {_GPUS} is {parent[_GPUS]!r}")
    return names[index].strip()
