"""What ``devices=`` means: slots for worker processes, and the environment that ties each to its device."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

Device = str | int | tuple[int | str, float]

LOOK = "TUNESMITH_LOOK"  #: in the environment of a worker that has to see itself whether this GPU is there

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_GPUS = "CUDA_VISIBLE_DEVICES"
_JAX_PART = "XLA_PYTHON_CLIENT_MEM_FRACTION"  # without it a process of JAX takes three quarters of a GPU's memory


@dataclass(frozen=True)
class Slot:
    """A place where a worker process runs: ``gpu`` None lets it see every GPU, "" none; ``cores`` None is its share.

    ``part`` is how much of the GPU it has, and ``name`` what the user calls it.
    """

    gpu: str | None = None
    cores: int | None = None
    part: float = field(default=1.0, compare=False)
    name: str = field(default="", compare=False)

    def environment(self, slots: int, parent: Mapping[str, str] = os.environ) -> dict[str, str]:
        """What a worker's environment has besides its parent's, if ``slots`` workers share the machine.

        Numeric libraries get as many threads as the worker has cores, unless the user has set ``OMP_NUM_THREADS``;
        JAX on a part of a GPU gets that part of its memory.
        """
        found = {} if self.gpu is None else {_GPUS: self.gpu}
        if self.part < 1 and _JAX_PART not in parent:
            found[_JAX_PART] = f"{0.9 * self.part:.3g}"  # the rest is for what CUDA itself needs
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
        devices: each is one slot: ``"cpu"``, ``"cpu:4"`` (four cores), a GPU as ``0`` or ``"cuda:0"``, a part of one as
            ``(0, 0.5)`` or ``"cuda:0:0.5"``. None: ``workers`` slots that see every device.
        workers: how many, where there are no devices; otherwise 1 or the number of slots.
        parent: the environment; the ids count within its ``CUDA_VISIBLE_DEVICES``, where that is set.

    Raises:
        ValueError: a device is none of these, the numbers do not fit, or a GPU is given away more than once.
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
    slots = [_slot(device, parent) for device in devices]
    if not slots:
        raise ValueError("devices=[] leaves no place to train")
    if workers not in (1, len(slots)):
        raise ValueError(f"workers={workers}, but devices={devices} are {len(slots)} slots: leave one of the two out")
    _refuse_too_many(slots)
    return slots


def check(slots: Sequence[Slot], parent: Mapping[str, str] = os.environ) -> bool:
    """See that the GPUs of all slots are there, so that nothing is trained on the processor instead.

    Returns:
        Whether that is certain. Otherwise each worker must look itself (see ``find_gpu``).

    Raises:
        ValueError: one is not there.
    """
    wanted = [slot for slot in slots if slot.gpu]
    there = count_gpus() if wanted else 0
    if there is None:
        return False
    for slot in wanted:
        if slot.gpu is not None and slot.gpu.isdecimal() and int(slot.gpu) >= there:
            seen = f" ({_GPUS} is {parent[_GPUS]!r})" if _GPUS in parent else ""
            found = f"has {there}, {', '.join(f'cuda:{i}' for i in range(there))}" if there else "has no GPU"
            raise ValueError(f"device {slot.name!r} is not there: this machine {found}{seen}")
    return all(slot.gpu is not None and slot.gpu.isdecimal() for slot in wanted)


def count_gpus() -> int | None:
    """The GPUs of NVIDIA in this machine, whatever ``CUDA_VISIBLE_DEVICES`` says; None where that can't be known.

    Asks the library of `nvidia-smi`, which leaves the GPUs alone.
    """
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        others = any(True for pattern in _OTHERS for _ in Path("/dev").glob(pattern))
        return 0 if sys.platform == "linux" and not others else None
    count = ctypes.c_uint(0)
    if library.nvmlInit_v2() or library.nvmlDeviceGetCount_v2(ctypes.byref(count)):
        return None
    library.nvmlShutdown()
    return count.value


def find_gpu() -> bool:
    """Whether this process can use a GPU. It begins to use the driver, so it is for workers only."""
    for name, begin, count_them in _DRIVERS:
        count = ctypes.c_int(0)
        with suppress(OSError, AttributeError):  # it is not installed, or too old
            library = ctypes.CDLL(name)
            if (
                getattr(library, begin)(0) == 0
                and getattr(library, count_them)(ctypes.byref(count)) == 0
                and count.value
            ):
                return True
    return False


#: what stands in /dev for GPUs of which `nvidia-smi` knows nothing: AMD's, those below Windows, of boards
_OTHERS = ("nvidia*", "kfd", "dxg", "nvhost*", "nvmap")

#: the drivers of NVIDIA and AMD, how they begin and how they count the GPUs that this process may see
_DRIVERS = (
    ("libcuda.so.1", "cuInit", "cuDeviceGetCount"),
    ("libamdhip64.so", "hipInit", "hipGetDeviceCount"),
)


def _refuse_too_many(slots: Sequence[Slot]) -> None:
    for gpu in dict.fromkeys(slot.gpu for slot in slots if slot.gpu):
        same = [slot for slot in slots if slot.gpu == gpu]
        given = sum(slot.part for slot in same)
        if given > 1 + 1e-9:
            name = ":".join(same[0].name.split(":")[:2])
            advice = f'give each a part of it, such as "{name}:{int(100 / len(same)) / 100:g}"'
            raise ValueError(f"devices: {len(same)} slots have {given:g} of {name} together: {advice}")


def _slot(device: Device, parent: Mapping[str, str]) -> Slot:
    name, fraction = (device[0], device[1]) if isinstance(device, tuple) else (device, 1.0)
    kind, *rest = ["cuda", str(name)] if isinstance(name, int) else str(name).split(":")
    try:
        if kind == "cpu" and len(rest) <= 1 and fraction == 1:
            return Slot("", _positive(rest[0]) if rest else None, name=str(name))
        if kind == "cuda" and 1 <= len(rest) <= 2 and int(rest[0]) >= 0:
            part = _part(float(rest[1]) if len(rest) > 1 else fraction)
            name = f"cuda:{int(rest[0])}"
            return Slot(_visible(int(rest[0]), parent), None, part, name if part == 1 else f"{name}:{part:g}")
    except ValueError as error:
        raise ValueError(f"device {device!r}: {error}") from error
    raise ValueError(f'device {device!r} is none of "cpu", "cpu:4", 0, "cuda:0", (0, 0.5), "cuda:0:0.5"')


def _positive(text: str) -> int:
    if int(text) < 1:
        raise ValueError("a slot has at least one core")
    return int(text)


def _part(fraction: float) -> float:
    if not 0 < fraction <= 1:
        raise ValueError(f"the part {fraction} must be in (0, 1]")
    return fraction


def _visible(index: int, parent: Mapping[str, str]) -> str:
    """The name of GPU ``index`` for a child, where the parent itself may see only some."""
    if _GPUS not in parent:
        return str(index)
    names = [name for name in parent[_GPUS].split(",") if name.strip()]
    if index >= len(names):
        raise ValueError(f"there is no GPU {index}, {_GPUS} is {parent[_GPUS]!r}")
    return names[index].strip()
