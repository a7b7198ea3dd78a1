"""Ready-made tasks, with their data, that the demo, the benchmarks and the tests share."""
