"""Folders and classes of any name, all the way from the images to what a package says of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgenas.cli import main
from edgenas.data import listing
from edgenas.data.images import load_images
from edgenas.package.build import FOLDER

CLASSES = [b"caf\xe9", "日本\n語".encode(), 'Bär|ü, "q"'.encode(), b"<b>`x`<", b"=cmd()", b"\x1b[31mred", b"_a_ *b*"]
SHOWN = ["=cmd()", "<b>`x`<", 'Bär|ü, "q"', "_a_ *b*", "caf\\xe9", "日本 語", "\\x1b[31mred"]


@pytest.fixture
def images(tmp_path: Path) -> str:
    """A colour a class, in a folder that is not UTF-8 either."""
    top = os.fsencode(tmp_path) + b"/my data (v2) \xfc"
    random = np.random.default_rng(0)
    for number, name in enumerate(CLASSES):
        os.makedirs(top + b"/" + name)
        colour = np.array([40 + 200 * (number >> bit & 1) for bit in range(3)])
        for image in range(20):
            pixels = np.clip(colour + random.integers(-30, 30, (32, 32, 3)), 0, 255).astype(np.uint8)
            with open(top + b"/" + name + b"/%02d.png" % image, "wb") as file:
                Image.fromarray(pixels).save(file, "PNG")
    return os.fsdecode(top)


def run_command(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command says, which any terminal shows."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    out, err = capfd.readouterr()
    assert end.value.code in (0, None), err
    assert all(line.isprintable() for line in (out + err).splitlines())
    return out


@pytest.mark.usefixtures("workplace", "one_thread")
def test_any_name_goes_all_the_way(images: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    listing._said.clear()
    assert sorted(load_images(images).class_names) == sorted(SHOWN)
    search = ("search", "--macs", "20M", "--fitness", "macs", "--generations", "2", "--dataset", images, "--run", "odd")
    assert "my data (v2) \\xfc: macs <= 20 M" in run_command(capfd, *search)
    assert "my data" in run_command(capfd, "runs", "show", "odd")
    run_command(capfd, "search", "--macs", "20M", "--fitness", "macs", "--generations", "1", "--run", "other")
    assert "my data (v2) \\xfc" in run_command(capfd, "runs", "compare", "odd", "other")
    run_command(capfd, "runs", "list")
    run_command(capfd, "runs", "list", "--json")
    trained = run_command(capfd, "train", "odd", "--epochs", "30", "--batch-size", "16", "--learning-rate", "0.03")
    assert "of 28 test images of" in trained
    assert "are right, after" in trained
    assert "my data (v2) \\xfc" in run_command(capfd, "export", "odd")
    archive = str(tmp_path / "odd.tar.gz")
    run_command(capfd, "package", "odd", "-o", archive)
    assert "passed" in run_command(capfd, "verify", archive)
    manifest = json.loads(run_command(capfd, "package", "odd", "-o", archive, "--json"))
    assert sorted(manifest["classes"]) == sorted(SHOWN)

    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    card = (tmp_path / FOLDER / "MODEL_CARD.md").read_text("utf-8")
    assert '`Bär|ü, "q"`' in card
    assert "`<b>'x'<`" in card
    assert "`_a_ *b*`" in card
    files = [os.fsdecode(os.fsencode(images) + b"/" + name + b"/04.png") for name in CLASSES]
    for locale in ("C.UTF-8", "C"):
        environment = {**os.environ, "LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        command = [sys.executable, str(tmp_path / FOLDER / "run.py"), *files]
        done = subprocess.run(command, capture_output=True, env=environment, timeout=300)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.decode("utf-8").splitlines()
        assert len(lines) == len(files)
        assert all(line.isprintable() for line in lines)
        done = subprocess.run([*command, "--json"], capture_output=True, env=environment, timeout=300)
        found = [each["classes"][0]["name"] for each in json.loads(done.stdout)]
        wanted = [
            load_images(images).class_names[sorted(map(os.fsdecode, CLASSES)).index(os.fsdecode(name))]
            for name in CLASSES
        ]
        assert np.mean([one == other for one, other in zip(found, wanted, strict=True)]) > 0.8


@pytest.mark.usefixtures("workplace", "one_thread")
def test_an_architecture_is_trained_on_them_in_a_folder_of_a_usual_name(
    images: str, capfd: pytest.CaptureFixture[str]
) -> None:
    cell = "|none~0|+|none~0|none~1|+|nor_conv_1x1~0|none~1|none~2|"
    said = run_command(capfd, "train", "--arch", cell, "--dataset", images, "--epochs", "1", "--batch-size", "16")
    assert "weights in runs/trained-my-data-v2/train/model.pt" in said
    said = run_command(
        capfd, "train", "runs/trained-my-data-v2", "--restart", "--epochs", "1", "--batch-size", "16", "--json"
    )
    assert json.loads(said)["dataset"] == images
