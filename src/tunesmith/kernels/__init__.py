"""Kernels for populations on a GPU: what XLA makes slow when every member has weights of its own.

* `tunesmith.kernels.convolution`: convolutions that copy no patches;
* `tunesmith.kernels.fused`: dense layers whose update is part of the backward pass.

All are functions of one member, for the ``step`` of a `tunesmith.execution.JaxTask`; ``jax.vmap`` makes a population of
them. They are written in Triton's language; where it is not there, or no NVIDIA GPU, the same formulas are plain JAX
(`_launch` says what runs where). They need JAX, and ``import tunesmith`` imports none of them.
"""
