"""`python -m holdfast.warm DESCRIPTOR|bytecode`."""

from holdfast.warm.server import run

if __name__ == "__main__":
    run()
