"""Kernels for populations on a GPU: what XLA makes slow when every member has weights of its own.

* `tunesmith.kernels.convolution`: convolutions that copy no patches;
* `tunesmith.kernels.fused`: dense layers whose update is part of the backward pass.

All are functions of one member, for the ``step`` of a `tunesmith.execution.JaxTask`; ``jax.vmap`` makes a population of
them. They are written with Pallas, for its Triton backend; on other devices than NVIDIA's GPUs the same formulas are
plain JAX. They need JAX, and ``import tunesmith`` imports none of them.
"""
