"""A driver that has vanished is noticed: at once on this machine, after a while on others."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tunesmith.execution import Lease

HOLD = """
import sys, time, pathlib
from tunesmith.execution import Lease
with Lease(pathlib.Path(sys.argv[1])) as lease:
    print(lease.id, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "study.db.leases"


def holder(folder):
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_a_killed_driver_has_vanished_at_once(folder):
    with Lease(folder) as lease, holder(folder) as process:
        other = process.stdout.readline().strip()
        assert not lease.vanished(other)
        process.kill()
        process.wait()
        assert lease.vanished(other)
        assert lease.vanished(other)  # its file is gone now
        assert [path.name for path in folder.iterdir()] == [f"{lease.id}.lease"]


def test_a_clean_end_removes_everything(folder):
    with Lease(folder) as lease:
        with holder(folder) as process:
            other = process.stdout.readline().strip()
            process.communicate("\n")
        assert lease.vanished(other)
        assert not lease.vanished(lease.id)
    assert not folder.exists()


def test_who_else_is_there(folder):
    with Lease(folder) as one:
        assert not one.others()
        with Lease(folder) as other:
            assert one.others() and other.others()
        assert not one.others()
    assert not Lease(None).others()


def test_two_drivers_of_one_process(folder):
    with Lease(folder) as one:
        with Lease(folder) as two:
            assert not one.vanished(two.id)
            assert not two.vanished(one.id)
        assert one.vanished(two.id)


def test_drivers_of_other_machines_are_judged_by_their_heartbeat(folder):
    with Lease(folder, seconds=60) as lease:
        path = folder / "elsewhere-1-0123abcd.lease"
        path.touch()
        assert not lease.vanished(path.stem)
        os.utime(path, (time.time() - 61,) * 2)
        assert lease.vanished(path.stem)


def test_the_heart_beats(folder):
    with Lease(folder, seconds=0.2) as lease:
        path = folder / f"{lease.id}.lease"
        os.utime(path, (0, 0))
        until = time.monotonic() + 3600
        while path.stat().st_mtime == 0:
            assert time.monotonic() < until
            time.sleep(0.01)


@pytest.mark.parametrize("worker", ["", "by hand", "../../etc/x-1-0123abcd", "a-b"])
def test_jobs_asked_without_a_lease_are_nobodys_business(folder, worker):
    with Lease(folder) as lease:
        assert not lease.vanished(worker)
    with Lease(None) as lease:
        assert not lease.vanished("host-1-0123abcd")


def test_a_relative_folder_is_meant_from_where_it_began(tmp_path, monkeypatch):
    """Training code may change the directory; others must not take the driver for gone."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with Lease(Path("study.db.leases")) as one, Lease(Path("study.db.leases")) as two:
        monkeypatch.chdir("elsewhere")
        assert not one.vanished(two.id) and not two.vanished(one.id)
        assert one.vanished("elsewhere-1-0123abcd")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere"]
