"""Nothing from outside moves the terminal: escapes, and marks that turn the writing direction, wherever they are."""

from __future__ import annotations

import json
import logging
import os
import pty
import subprocess
import sys
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgenas import device
from edgenas.board import pool, registry
from edgenas.board.registry import Board
from edgenas.cli import main
from edgenas.cli.progress import follow
from edgenas.errors import BoardError
from edgenas.package.build import FOLDER
from edgenas.text import guarded
from tests.test_device import MINE
from tests.test_package import packed, unpacked, vouched

NASTY = "\x1b]0;owned\x07\x1b[31mred\u202e\x9b2J\r\x7f\x1b[2J\n\x1b[1Aforged"
LISTENING = "\x1b[31m\x9b2J\u202e"  # in a name of a file, which holds no line end
TYPED = 'title = "My board"'


def is_clean(text: str) -> bool:
    """Whether `text` is lines of characters that can be printed."""
    return text.replace("\n", "").replace("\t", "").isprintable()


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """The exit code, and all that was printed, which is clean."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    printed = capsys.readouterr()
    for text in printed:
        assert is_clean(text), ascii(text)
        assert "\nforged" not in text
    code = end.value.code if isinstance(end.value.code, int) else 0
    if "--json" in arguments and printed.out:
        json.loads(printed.out)
    assert code == 0 or printed.err.startswith("edgenas: "), printed.err
    return code, printed.out + printed.err


def toml(text: str) -> str:
    return json.dumps(text).replace("\x7f", "\\u007f")


def test_a_profile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = MINE
    for word in ("My board", "A board of my own.", '"a"', '"b"'):
        plain = word.strip('"')
        text = text.replace(f'"{plain}"', toml(plain + NASTY))
    path = tmp_path / f"a{LISTENING}.toml"
    path.write_text(text)
    for more in ([], ["--json"]):
        code, out = run(capsys, "devices", "show", str(path), *more)
        assert code == 0
        assert "owned" in out
    path.write_text(MINE.replace('kind = "board"', f"kind = {toml(NASTY)}"))
    assert run(capsys, "devices", "show", str(path))[0] == 2
    path.write_text(MINE.replace(TYPED, f"{toml(NASTY)} = 1"))
    assert run(capsys, "devices", "show", str(path))[0] == 2
    path.write_text(MINE.replace(TYPED, f"title = {NASTY}"))
    assert run(capsys, "search", "--device", str(path), "--latency", "5ms")[0] == 2


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "..", NASTY, "a b", "", "x" * 65, "CON/../x"])
def test_a_profile_cannot_say_where_a_run_is_written(
    name: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = workplace / "mine.toml"
    path.write_text(MINE.replace('"my_board"', toml(name)))
    code, out = run(capsys, "search", "--device", str(path), "--macs", "60M", "--generations", "2")
    assert code == 2
    assert "cannot name a device; use letters" in out
    assert [each.name for each in workplace.iterdir()] == ["mine.toml"]


def test_runs_of_others(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "search", "--macs", "60M", "--generations", "2", "--run", "good")[0] == 0
    for name in ("run.json", "result.json"):
        content = (workplace / "runs" / "good" / name).read_text()
        for word in ('"host"', '"cifar10"', '"counted"', "analytic", "0.1.0"):
            content = content.replace(word, word[:-1] + json.dumps(NASTY)[1:-1] + word[-1])
        (workplace / "runs" / f"a{LISTENING}").mkdir(exist_ok=True)
        (workplace / "runs" / f"a{LISTENING}" / name).write_text(content)
    (workplace / "runs" / f"a{LISTENING}" / "trials.jsonl").write_text("")
    for command in (["list"], ["show", f"a{LISTENING}"], ["compare", "good", f"a{LISTENING}"]):
        for more in ([], ["--json"]):
            run(capsys, "runs", *command, *more)
    run(capsys, "runs", "pick", f"a{LISTENING}", "--macs", "60M")
    run(capsys, "search", "--resume", f"a{LISTENING}")
    run(capsys, "train", f"a{LISTENING}")


def test_class_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in (b"cat", LISTENING.encode(), b"caf\xe9"):
        os.mkdir(os.fsencode(tmp_path) + b"/" + name)
    arch = "|nor_conv_3x3~0|+|skip_connect~0|none~1|+|none~0|nor_conv_1x1~1|avg_pool_3x3~2|"
    code, _ = run(capsys, "train", "--arch", arch, "--dataset", str(tmp_path))
    assert code == 7


def test_boards_and_what_they_say(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    registry.add(Board("here", "host", "ssh", {"host": NASTY, "key": NASTY}))
    assert "owned" in run(capsys, "board", "list")[1]
    run(capsys, "board", "list", "--json")
    facts = {
        **dict.fromkeys(("model", "cpu", "machine", "python", "cores", "platform"), NASTY),
        "runtimes": [{"name": NASTY, "version": NASTY, "formats": ["onnx"]}],
        "state": {"governor": [NASTY], "load": 0.1, "temperature_c": {NASTY: 90.0}},
    }
    session = SimpleNamespace(facts=facts, call=lambda *_: None, close=lambda: None)
    monkeypatch.setattr(pool, "connect", lambda entry: session)
    for more in ([], ["--json"]):
        code, out = run(capsys, "board", "check", "here", *more)
        assert code == 0
        assert "owned" in out

    def refuse(entry: Board) -> None:
        raise BoardError(f"here answered 'SSH-2.0-{NASTY}', which is no SSH server; check its address")

    monkeypatch.setattr(pool, "connect", refuse)
    code, out = run(capsys, "board", "check", "here")
    assert (code, out.count("\n")) == (4, 1)
    assert "owned" in out
    assert run(capsys, "board", "add", NASTY, "--device", "host", "--local")[0] == 2
    content = registry.config_dir() / "boards.json"
    content.write_text(content.read_text().replace('"here"', '"../here"'))
    assert run(capsys, "board", "list")[0] == 7


def nasty(manifest: dict[str, Any]) -> None:
    manifest["classes"][0] = NASTY
    manifest["architecture"]["arch_str"] = NASTY
    manifest["versions"] |= {"edgenas": NASTY, "lowering": NASTY}
    manifest["dataset"]["name"] = NASTY
    manifest["device"] = {"name": NASTY, "title": NASTY, "profile_sha256": "0" * 64}
    for model in manifest["models"]:
        model["runtimes"] = [NASTY]


def test_a_package(archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    only = {f"{FOLDER}/{name}" for name in ("model.tflite", "model_f16.tflite", "model_int8.tflite")}
    content = {name: each for name, each in unpacked(archive).items() if name not in only}

    def change(manifest: dict[str, Any]) -> None:
        nasty(manifest)
        manifest["files"] = {name: each for name, each in manifest["files"].items() if f"{FOLDER}/{name}" not in only}
        manifest["models"] = [each for each in manifest["models"] if each["file"] == "model.onnx"]

    content[f"{FOLDER}/run.py"] = b"another's"
    path = tmp_path / f"a{LISTENING}.tar.gz"
    manifest = json.loads(content[f"{FOLDER}/manifest.json"])
    change(manifest)
    content[f"{FOLDER}/manifest.json"] = json.dumps(manifest).encode()
    packed(path, vouched(content))
    for more in ([], ["--json"]):
        code, out = run(capsys, "verify", str(path), *more)
        assert code == 0
        assert "owned" in out
    for name in (f"{FOLDER}/{LISTENING}", NASTY):
        code, out = run(capsys, "verify", str(packed(path, {name: b""})))
        assert code == 7
        assert "holds 'edgenas_model/\\x1b[31m" in out or "owned" in out
    packed(path, vouched(content, lambda manifest: manifest.update({NASTY: 1})))
    assert "owned" in run(capsys, "verify", str(path))[1]


def test_the_runner_of_a_package(archive: Path, tmp_path: Path) -> None:
    content = vouched(unpacked(archive), nasty)
    folder = tmp_path / "elsewhere"
    with tarfile.open(packed(tmp_path / "a.tar.gz", content)) as tar:
        tar.extractall(folder, filter="data")
    folder /= FOLDER
    images = np.load(folder / "golden" / "input.npy")
    manifest = json.loads((folder / "manifest.json").read_text())
    first = manifest["golden"]["top1"].index(0)
    np.save(folder / f"a{LISTENING}.npy", images[first])
    commands = [
        [f"a{LISTENING}.npy"],
        [f"a{LISTENING}.npy", "--json"],
        ["--self-check"],
        ["--self-check", "--json"],
        [f"none{LISTENING}.png"],
        [f"--{LISTENING}"],
        ["--model", NASTY, "--self-check"],
    ]
    for command in commands:
        for encoding in ("utf-8", "ascii"):
            done = subprocess.run(
                [sys.executable, "-I", "-X", "utf8=0", str(folder / "run.py"), *command],
                cwd=folder,
                capture_output=True,
                timeout=120,
                env={**os.environ, "PYTHONIOENCODING": encoding, "LC_ALL": "C.UTF-8"},
            )
            out, err = done.stdout.decode(encoding), done.stderr.decode(encoding)
            assert is_clean(out), ascii(out)
            assert is_clean(err), ascii(err)
            assert "Traceback" not in err
            assert done.returncode == (0 if command in commands[:4] else 2), err
            if "--json" in command:
                assert json.loads(out)
            elif command == commands[0]:
                assert "\\u001b]0;owned" in out
                assert out.count("\n") == 1


def test_what_is_typed_and_what_is_logged(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments in ([LISTENING], ["search", f"--{LISTENING}"], ["search", "--budget", LISTENING], ["verify", NASTY]):
        code, out = run(capsys, *arguments)
        assert code in (2, 7)
        assert out.count("\n") == 1

    def show(name: str) -> None:
        logging.getLogger("edgenas.device").warning("the profile of %s", name)
        print("{}".format({"said": name}), name)

    monkeypatch.setattr(device, "load", show)
    with guarded():
        show(NASTY)
    printed = capsys.readouterr()
    assert is_clean(printed.out), ascii(printed.out)


def in_terminal(code: str, **env: str) -> str:
    """What a terminal gets from a program."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", **env}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=theirs, stdout=theirs, stderr=theirs, env=environment, close_fds=True
    ) as program:
        os.close(theirs)
        found = b""
        try:
            while some := os.read(ours, 65536):
                found += some
        except OSError:  # Linux tells the end so
            pass
        assert program.wait(120) == 0, found
    os.close(ours)
    return found.decode("utf-8", "surrogateescape")


def test_help_and_progress_keep_their_colours_in_a_terminal() -> None:
    shown = in_terminal("from edgenas.cli import main\nmain(['search', '--help'])")
    assert "\x1b[1m" in shown
    assert "\\u001b" not in shown
    shown = in_terminal(
        f"""
from edgenas.cli.progress import follow
from edgenas.report.doctor import DownloadBar
from edgenas.text import guarded
class Job:
    share_done, state = 0.5, {NASTY!r} + "[/red]"
    def __iter__(self):
        yield
        print({NASTY!r})
        yield
with guarded():
    follow(Job())
    with DownloadBar({NASTY!r}) as bar:
        bar.total = 10
        bar.update(5)
"""
    )
    assert "\x1b[" in shown  # rich's own
    assert "owned" in shown
    for each in ("\x1b]0;", "\x1b[31mred", "\x9b", "\u202e", "\x7f", "\x1b[2J", "\x1b[1Aforged"):
        assert each not in shown, ascii(shown)


@dataclass
class Job:
    share_done: float = 0.0
    state: str = NASTY
    _done: list[int] = field(default_factory=list)

    def __iter__(self) -> Any:
        return iter([1])


def test_progress_without_a_terminal_is_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 1000, 100))
    monkeypatch.setattr("edgenas.cli.progress.time.monotonic", lambda: float(next(clock)))
    follow(Job())
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert is_clean(shown)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_alphabet_will_do(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(MINE.replace("My board", "Bänkchen 板"), encoding="utf-8")
    name = os.fsencode(tmp_path) + b"/caf\xe9.toml"
    Path(os.fsdecode(name)).write_bytes((tmp_path / "mine.toml").read_bytes())
    code = "import sys; from edgenas.cli import main; main(sys.argv[1:])"
    for path, expected in ((name, 0), (name + b"x.toml", 2)):
        done = subprocess.run(
            [sys.executable, "-c", code, "devices", "show", os.fsdecode(path)],
            capture_output=True,
            env={**os.environ, "PYTHONIOENCODING": encoding},
            timeout=120,
        )
        assert done.returncode == expected, done.stderr
        out, err = done.stdout.decode(encoding), done.stderr.decode(encoding)
        assert is_clean(out + err), ascii(out + err)
        assert "caf" in out + err
        assert expected or "kchen" in out
