"""Helpers for the frameworks that people train with. Each module imports its framework; none is needed by the core."""
