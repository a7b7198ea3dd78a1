"""What ``devices=`` means."""

from __future__ import annotations

import pytest

from tunesmith.execution.devices import Slot, cores, parse

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
        ("cuda:0:0.5", 1, {}, [Slot("0")] * 2),
        ((0, 0.5), 2, {}, [Slot("0")] * 2),
        ([(1, 0.3), "cuda:0"], 1, {}, [Slot("1")] * 3 + [Slot("0")]),
        ((0, 1), 1, {}, [Slot("0"), Slot("1")]),
        ([("cuda:1", 0.5)], 1, {}, [Slot("1")] * 2),
        ((0, 1 / 3), 1, {}, [Slot("0")] * 3),
    ],
)
def test_slots(devices, workers, parent, slots):
    assert parse(devices, workers, parent) == slots


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
