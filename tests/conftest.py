"""Tests run on processors, also where there is a GPU, unless they ask for it: dozens of processes would share it, and
products of float32 have only ten bits there. ``JAX_DEFAULT_DEVICE=gpu pytest`` runs on the GPU what uses JAX.
"""

import os

os.environ.setdefault("JAX_DEFAULT_DEVICE", "cpu")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # for the tests that do ask
