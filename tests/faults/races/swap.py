"""`python swap.py FILE GOOD EVIL`: gives FILE the bytes of EVIL, those of GOOD, and so on until it is killed."""

import random
import sys
import time
from pathlib import Path


def swap(path: Path, right: Path, wrong: Path) -> None:
    """Never returns."""
    good, evil = right.read_bytes(), wrong.read_bytes()
    other = path.with_name(".swapped")
    chance = random.Random(0)
    while True:
        for data in (evil, good):
            way = chance.randrange(3)
            if way == 0:
                path.write_bytes(data)
            elif way == 1:
                other.write_bytes(data)
                other.replace(path)
            else:
                with path.open("r+b") as stream:
                    half = chance.randrange(len(data))
                    stream.write(data[:half])
                    stream.flush()
                    stream.write(data[half:])
            # For times about as long as a check and a load take; good for longer, so that many get to their load.
            time.sleep(chance.choice((0.0, 0.0005, 0.002, 0.01)) * (4 if data is good else 1))


if __name__ == "__main__":
    swap(*(Path(word) for word in sys.argv[1:4]))
