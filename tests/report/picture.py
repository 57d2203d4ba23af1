"""Makes docs/report.png, the picture of a report in docs/reports.md, by the commands there.

python -m tests.report.picture
"""

from __future__ import annotations

import base64
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.pages import ROOT, maker
from tests.report.browser import started

NAME = "raspi4-latency-5ms"
SIZE = {"width": 1000, "height": 1290}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        bare = {key: value for key, value in os.environ.items() if not key.startswith("EDGENAS_")}
        for command in (maker(NAME), f"edgenas report {NAME}"):
            words = [sys.executable, "-c", "from edgenas.cli import main; main()", *shlex.split(command)[1:]]
            subprocess.run(words, cwd=folder, env=bare, check=True, stdout=subprocess.DEVNULL)
        with started(Path(folder) / "profile") as browser:
            browser.open(Path(folder) / "report.html", SIZE["width"])
            clip = {"x": 0, "y": 0, **SIZE, "scale": 0.75}
            shot = browser.send("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        (ROOT / "docs" / "report.png").write_bytes(base64.b64decode(shot["data"]))


if __name__ == "__main__":
    main()
