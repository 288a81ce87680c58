"""The built-in benchmarks, one module per family: functions that take a `BenchmarkRequest` and return a `Benchmark`."""
