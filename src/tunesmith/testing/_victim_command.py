"""The training of ``_victim.py`` as a program that knows nothing of this package."""

import json
import os
import sys
import time
from pathlib import Path

folder = Path(os.environ["TUNESMITH_CHAOS"])
plan = json.loads((folder / "plan.json").read_text())
config = json.loads(os.environ["TUNESMITH_CONFIG"])
saves = "forgets" not in sys.argv
start, until = int(os.environ["TUNESMITH_START"]), int(os.environ["TUNESMITH_UNTIL"])
save = Path(os.environ["TUNESMITH_SAVE"])
x = int((Path(os.environ["TUNESMITH_LOAD"]) / "x").read_text()) if start else 0
for step in range(start + 1, until + 1):
    x = (17 * x + config["a"] * step + config["b"] + config.get("shift", 0)) % 9973
    with (folder / "journal").open("ab", buffering=0) as journal:
        journal.write(b"%5d %5d\n" % (int(os.environ["TUNESMITH_TRIAL"]), step))
    time.sleep(plan["nap"])
    if plan["diverges"] and x % plan["diverges"] == 0:
        sys.exit("the training has diverged")
    print(json.dumps({"x": x, "y": (31 * x) % 101, "z": x % 10}), flush=True)
    if saves and step % 3 == 0 and step < until:
        (save / f"at-{step}").mkdir()
        (save / f"at-{step}" / "x").write_text(str(x))
        print(json.dumps({"checkpoint": f"at-{step}"}), flush=True)
if saves:
    (save / "x").write_text(str(x))
