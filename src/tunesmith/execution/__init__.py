"""Training: what users write, where it runs, and the loop that connects it to a study."""

from tunesmith.checkpoints import CheckpointError, Checkpoints, Files, Saved
from tunesmith.execution.adapters import Stopped, Trial, as_task
from tunesmith.execution.base import EndedError, ExecutionError, Executor, Failure, Report, Task, current_job
from tunesmith.execution.command import Command
from tunesmith.execution.driver import Outcome, drive
from tunesmith.execution.inline import Inline
from tunesmith.execution.jax_task import JaxTask
from tunesmith.execution.leases import Lease
from tunesmith.execution.processes import Processes
from tunesmith.execution.recorded import Curve, Recorded
from tunesmith.execution.session import Options, Session
from tunesmith.execution.simulated import Played, Simulated, Simulation, simulate
from tunesmith.execution.torch_task import TorchTask
from tunesmith.execution.tune import run, tune
from tunesmith.execution.vectorised import Vectorised

__all__ = [
    "CheckpointError",
    "Checkpoints",
    "Command",
    "Curve",
    "EndedError",
    "ExecutionError",
    "Executor",
    "Failure",
    "Files",
    "Inline",
    "JaxTask",
    "Lease",
    "Options",
    "Outcome",
    "Played",
    "Processes",
    "Recorded",
    "Report",
    "Saved",
    "Session",
    "Simulated",
    "Simulation",
    "Stopped",
    "Task",
    "TorchTask",
    "Trial",
    "Vectorised",
    "as_task",
    "current_job",
    "drive",
    "run",
    "simulate",
    "tune",
]
