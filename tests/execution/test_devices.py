"""What ``devices=`` means."""

from __future__ import annotations

import pytest

from tunesmith.execution import devices as module
from tunesmith.execution.devices import Slot, check, cores, count_gpus, find_gpu, parse

SHARED = {"CUDA_VISIBLE_DEVICES": "3,5"}


@pytest.mark.parametrize(
    ("devices", "workers", "parent", "slots"),
    [
        (None, 3, {}, [Slot(None)] * 3),
        ("cpu", 1, {}, [Slot("")]),
        (["cpu:4", "cpu"], 2, {}, [Slot("", 4), Slot("")]),
        (0, 1, {}, [Slot("0")]),
        ([0, 1], 1, {}, [Slot("0"), Slot("1")]),
        (["cuda:1"], 1, SHARED, [Slot("5")]),
        ("cuda:0:0.5", 1, {}, [Slot("0")]),
        (["cuda:0:0.5"] * 2, 2, {}, [Slot("0")] * 2),
        ((0, 0.5), 1, {}, [Slot("0")]),
        ([(1, 0.3), "cuda:0"], 2, {}, [Slot("1"), Slot("0")]),
        ((0, 1), 1, {}, [Slot("0"), Slot("1")]),
        ([("cuda:1", 0.5)], 1, {}, [Slot("1")]),
        ([(0, 1 / 3)] * 3, 3, {}, [Slot("0")] * 3),
        ([(0, 0.1)] * 10, 1, {}, [Slot("0")] * 10),
        (["cuda:0:0.5", "cuda:1:0.5", "cuda:0:0.5"], 1, {}, [Slot("0"), Slot("1"), Slot("0")]),
    ],
)
def test_one_entry_is_one_slot(devices, workers, parent, slots):
    assert parse(devices, workers, parent) == slots
    assert len(parse(devices, workers, parent)) == len(slots)


@pytest.mark.parametrize(
    ("devices", "workers", "parent", "message"),
    [
        (None, 0, {}, "workers=0 must be at least 1"),
        ([], 1, {}, "leaves no place"),
        ("gpu", 1, {}, "'gpu' is none of"),
        ("cpu:0", 1, {}, "at least one core"),
        ("cpu:x", 1, {}, "device 'cpu:x'"),
        ("cpu:1:2", 1, {}, "is none of"),
        (("cpu", 0.5), 1, {}, "is none of"),
        (-1, 1, {}, "is none of"),
        ("cuda", 1, {}, "is none of"),
        ("cuda:0:2", 1, {}, r"the part 2.0 must be in \(0, 1\]"),
        ((0, 0.0), 1, {}, "the part 0.0"),
        (2, 1, SHARED, "there is no GPU 2, CUDA_VISIBLE_DEVICES is '3,5'"),
        (0, 1, {"CUDA_VISIBLE_DEVICES": ""}, "there is no GPU 0"),
        ([0, 1], 3, {}, "workers=3, but .* are 2 slots"),
        (["cuda:0", 0], 1, {}, '2 slots have 2 of cuda:0 together: give each a part of it, such as "cuda:0:0.5"'),
        (["cuda:0", "cuda:0:0.5"], 1, {}, "2 slots have 1.5 of cuda:0 together"),
        (["cuda:1:0.4"] * 3, 1, {}, '3 slots have 1.2 of cuda:1 together: .*"cuda:1:0.33"'),
        ([0, 1], 1, {"CUDA_VISIBLE_DEVICES": "7,7"}, "2 slots have 2 of cuda:0"),
    ],
)
def test_what_is_no_device(devices, workers, parent, message):
    with pytest.raises(ValueError, match=message):
        parse(devices, workers, parent)


def test_threads():
    share = str(max(1, cores() // 2))
    assert Slot().environment(2, {})["OMP_NUM_THREADS"] == share
    assert Slot().environment(10**6, {})["OMP_NUM_THREADS"] == "1"
    assert Slot().environment(2, {"OMP_NUM_THREADS": "7"}) == {}  # the user knows better
    assert Slot("", 4).environment(2, {"OMP_NUM_THREADS": "7"})["MKL_NUM_THREADS"] == "4"
    assert Slot("2").environment(1, {})["CUDA_VISIBLE_DEVICES"] == "2"


def test_a_part_of_a_gpu_is_a_part_of_its_memory_for_jax():
    half, _ = parse(["cuda:0:0.5"] * 2, 1, {})
    assert half.environment(2, {})["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.45"
    assert "XLA_PYTHON_CLIENT_MEM_FRACTION" not in half.environment(2, {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.2"})
    assert "XLA_PYTHON_CLIENT_MEM_FRACTION" not in Slot("0").environment(2, {})


@pytest.mark.parametrize(
    ("devices", "parent", "there", "certain"),
    [
        (None, {}, 0, True),
        ("cpu:2", {}, None, True),
        ([0, "cuda:1:0.5"], {}, 2, True),
        (0, {}, None, False),
        (["cuda:1"], SHARED, 6, True),
        (1, {"CUDA_VISIBLE_DEVICES": "0,GPU-7b2f"}, 1, False),  # a name is for the worker to find
    ],
)
def test_what_is_known_to_be_there(devices, parent, there, certain, monkeypatch):
    monkeypatch.setattr(module, "count_gpus", lambda: there)
    assert check(parse(devices, 1, parent), parent) is certain


@pytest.mark.parametrize(
    ("devices", "parent", "there", "message"),
    [
        (0, {}, 0, "device 'cuda:0' is not there: this machine has no GPU$"),
        (["cpu", (3, 0.5)], {}, 2, "device 'cuda:3:0.5' is not there: this machine has 2, cuda:0, cuda:1$"),
        (1, SHARED, 5, r"device 'cuda:1' is not there: .* \(CUDA_VISIBLE_DEVICES is '3,5'\)"),
    ],
)
def test_what_is_known_not_to_be_there(devices, parent, there, message, monkeypatch):
    monkeypatch.setattr(module, "count_gpus", lambda: there)
    with pytest.raises(ValueError, match=message):
        check(parse(devices, 1, parent), parent)


def test_counting_gpus_of_this_machine():
    """Whatever machine that is: what is certain agrees with PyTorch, which is not asked."""
    torch = pytest.importorskip("torch")
    counted = count_gpus()
    assert counted is None or (counted > 0) >= torch.cuda.is_available()
    if not torch.cuda.is_available():
        assert not find_gpu()


class Library:
    """A driver, as ctypes shows it."""

    def __init__(self, status, count):
        self.status, self.count = status, count

    def __getattr__(self, name):
        def function(target=None):
            if "Count" in name and hasattr(target, "_obj"):
                target._obj.value = self.count
            return self.status

        return function


@pytest.mark.parametrize(("status", "count"), [(0, 4), (0, 0), (9, 4)])
def test_the_library_of_nvidia_smi_and_the_driver_are_asked(status, count, monkeypatch):
    monkeypatch.setattr(module.ctypes, "CDLL", lambda name: Library(status, count))
    assert count_gpus() == (None if status else count)
    assert find_gpu() is (status == 0 and count > 0)


def missing(name):
    raise OSError(name)


@pytest.mark.parametrize(("others", "count"), [((), 0), (("null",), None)])
def test_without_libraries_the_devices_of_others_are_looked_for(others, count, monkeypatch):
    monkeypatch.setattr(module.ctypes, "CDLL", missing)
    monkeypatch.setattr(module, "_OTHERS", others)
    monkeypatch.setattr(module.sys, "platform", "linux")
    assert count_gpus() == count
    assert find_gpu() is False
