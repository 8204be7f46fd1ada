"""Takes a picture of the upper part of an HTML report, for the README: `make picture`.

    .venv/bin/python tools/picture.py .holdfast/demo/report.html docs/report.png

Headless Chromium draws the page; Pillow, which matplotlib brings into .venv, reduces it to a palette.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SIZE = (1000, 955)
"""Width and height in pixels: the table of the deliveries and the pipeline of the first."""
COLOURS = 64
LIMIT = 150_000
"""The most bytes that the repository keeps."""


class PictureError(Exception):
    """There is no picture."""


def main() -> int:
    """Writes the picture and prints its size; 1 where there is none."""
    parser = argparse.ArgumentParser(description="Take a picture of the upper part of an HTML report.")
    parser.add_argument("report", type=Path, help="an HTML report")
    parser.add_argument("picture", type=Path, help="the PNG to write")
    asked = parser.parse_args()
    try:
        data = reduced(drawn(asked.report))
    except PictureError as error:
        sys.stderr.write(f"picture: {error}\n")
        return 1
    asked.picture.write_bytes(data)
    sys.stdout.write(f"{asked.picture}: {len(data)} bytes\n")
    return 0


def drawn(report: Path) -> bytes:
    """What Chromium shows of a report, as a PNG."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise PictureError("expected chromium on the PATH, found none; Debian: apt-get install chromium")
    if not report.is_file():
        raise PictureError(f"expected {report}, found none; run make demo first")
    with TemporaryDirectory() as folder:
        taken = Path(folder, "picture.png")
        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--user-data-dir={folder}/profile",
        ]
        options += [f"--window-size={SIZE[0]},{SIZE[1]}", f"--screenshot={taken}", report.resolve().as_uri()]
        done = subprocess.run([browser, *options], capture_output=True, text=True, check=False)
        if done.returncode or not taken.is_file():
            raise PictureError(f"{browser} took no picture: {done.stderr.strip()[-300:]}")
        return taken.read_bytes()


def reduced(png: bytes) -> bytes:
    """The picture with a palette, small enough to be kept."""
    from PIL import Image

    image = Image.open(io.BytesIO(png)).convert("RGB").crop((0, 0, *SIZE))
    small = io.BytesIO()
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(small, format="PNG", optimize=True)
    if len(small.getvalue()) > LIMIT:
        raise PictureError(f"expected at most {LIMIT} bytes, found {len(small.getvalue())}")
    return small.getvalue()


if __name__ == "__main__":
    sys.exit(main())
