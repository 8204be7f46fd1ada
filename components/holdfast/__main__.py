"""`python -m holdfast` is what containers call."""

from holdfast.cli import main

if __name__ == "__main__":
    main()
