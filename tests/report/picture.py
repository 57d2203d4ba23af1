"""Makes the pictures in docs/reports.md, by the commands there and a training on digits, which takes two minutes.

python -m tests.report.picture
"""

from __future__ import annotations

import base64
import io
import os
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tests.pages import ROOT, maker
from tests.report.browser import Browser, started

WIDTH, SCALE = 1000, 0.75
MAX_BYTES = 150_000
ARCH = "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"


@dataclass(frozen=True)
class Picture:
    """Of docs/NAME.png: the report of `subject`, which `commands` make, from its top, or that of the section `first`,
    to the end of the section `last`."""

    name: str
    subject: str
    commands: tuple[str, ...]
    last: str
    first: str = ""


PICTURES = (
    Picture("report", "raspi4-latency-5ms", (maker("raspi4-latency-5ms"),), "Candidates"),
    Picture("report-front", "raspi4-pareto-latency", (maker("raspi4-pareto-latency"),), "Candidates"),
    Picture(
        "report-training",
        "digits",
        (
            f"edgenas train --arch '{ARCH}' --space nasbench201 --dataset digits --run digits --patience 15",
            "edgenas export digits",
        ),
        "Confusion",
        "Learning curves",
    ),
    Picture(
        "report-measurement",
        "measured.json",
        (
            "edgenas board add here --device host --local",
            "edgenas measure runs/digits/export/model.onnx --board here --latency 5ms --json > measured.json",
        ),
        "Latency samples",
    ),
)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bare = {key: value for key, value in os.environ.items() if not key.startswith("EDGENAS_")}
        own = {f"EDGENAS_{each}_DIR": str(folder / each.lower()) for each in ("CACHE", "CONFIG", "STATE")}
        for picture in PICTURES:
            for command in (*picture.commands, f"edgenas report {picture.subject} -o {picture.name}.html"):
                words, _, output = command.partition(" > ")
                called = [sys.executable, "-c", "from edgenas.cli import main; main()", *shlex.split(words)[1:]]
                done = subprocess.run(called, cwd=folder, env={**bare, **own}, stdout=subprocess.PIPE, check=True)
                if output:
                    (folder / output).write_bytes(done.stdout)
        with started(folder / "profile") as browser:
            for picture in PICTURES:
                content = taken(browser, folder / f"{picture.name}.html", picture)
                assert len(content) <= MAX_BYTES, (picture.name, len(content))
                (ROOT / "docs" / f"{picture.name}.png").write_bytes(content)


def taken(browser: Browser, page: Path, picture: Picture) -> bytes:
    """The picture as PNG of 256 colours."""
    browser.open(page, WIDTH)
    top, bottom = browser.run(
        """const found = title => [...document.querySelectorAll('section')]
            .find(each => each.firstElementChild.textContent === title).getBoundingClientRect();
        return [arguments[0] ? found(arguments[0]).top : 0, found(arguments[1]).bottom];""",
        picture.first,
        picture.last,
    )
    clip = {"x": 0, "y": top, "width": WIDTH, "height": bottom - top, "scale": SCALE}
    shot = browser.send("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
    written = io.BytesIO()
    Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB").quantize(256).save(
        written, "png", optimize=True
    )
    return written.getvalue()


if __name__ == "__main__":
    main()
