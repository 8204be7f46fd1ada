"""Decides: pure, without a clock, files or numpy. Counters and time come in, states and verdicts go out."""
