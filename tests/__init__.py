"""Tests, a folder for each package; `tests/faults` is also run whole by `make faults`."""
