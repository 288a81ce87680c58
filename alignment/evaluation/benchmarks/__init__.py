"""One small module per benchmark family; each function takes a `Request` and returns a `Benchmark`."""
