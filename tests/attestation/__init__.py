"""Signed chains for tests and benchmarks: `chains` makes one, `tamperings` breaks it in every way that we know."""
