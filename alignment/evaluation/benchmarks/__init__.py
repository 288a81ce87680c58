"""The built-in benchmarks. Each is a function that takes a `BenchmarkRequest` and returns a `Benchmark`."""
