"""Files that are pipes, devices or marked, and too little memory: each is a sentence, and nothing waits."""

from __future__ import annotations

import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgenas import device as devices
from edgenas import plugins
from edgenas.cli import main
from edgenas.data import files
from edgenas.errors import out_of_memory

pytestmark = [
    pytest.mark.usefixtures("workplace"),
    pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs pipes and devices"),
]
MARK = b"\xef\xbb\xbf"  # of UTF-8, which some editors write first


def run(text: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(shlex.split(text))
    captured = capsys.readouterr()
    return end.value.code if isinstance(end.value.code, int) else 0, captured.out, captured.err


@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("search --device FILE --latency 8ms", 2),
        ("search --device raspi4 --macs 20M --fitness live --dataset FILE", 7),
        ("search --device raspi4 --macs 20M --dataset digits --fitness live --reference FILE", 2),
        ("runs show FILE", 2),
        ("verify FILE", 7),
        ("data import nasbench201 FILE", 7),
        ("data import resnet20 FILE", 7),
        ("data import imagenet16-120 FILE", 7),
        ("board add here --device FILE --local", 2),
    ],
)
def test_a_file_that_never_ends(text: str, code: int, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("a.toml")
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    found, out, err = run(text.replace("FILE", f"./{path}"), capsys)
    assert (found, out) == (code, ""), err
    assert err.count("\n") == 1


def test_files_that_are_looked_for_are_files(
    monkeypatch: pytest.MonkeyPatch, workplace: Path, no_shipped_tables: None
) -> None:
    monkeypatch.setenv("EDGENAS_DATA_DIR", str(workplace))
    os.mkfifo("hw-nas-bench.npz")
    Path("nasbench201.npz").symlink_to("/dev/zero")
    assert files.locate("hw-nas-bench") is files.locate("nasbench201") is None


def test_a_byte_order_mark_is_read_over(capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(devices.profiles() / "raspi4.toml", "mine.toml")
    whole = run("search --device mine.toml --latency 8ms --generations 2 --run a", capsys)
    assert whole[0] == 0
    Path("marked.toml").write_bytes(MARK + Path("mine.toml").read_bytes())
    assert devices.load("marked.toml").predictor == devices.load("mine.toml").predictor
    for name in ("run.json", "trials.jsonl", "result.json"):
        path = Path("runs/a") / name
        path.write_bytes(MARK + path.read_bytes())
    code, _, err = run("search --resume a", capsys)
    assert code == 0, err
    assert run("runs list", capsys)[1].count("finished") == 1
    run("board add here --device host --local", capsys)
    path = Path(os.environ["EDGENAS_CONFIG_DIR"]) / "boards.json"
    path.write_bytes(MARK + path.read_bytes())
    assert "here" in run("board list", capsys)[1]


@pytest.mark.parametrize("content", [b"[" * 100_000, b"x = " + b"[" * 100_000, b"\xff\xfe", b"a\0b"])
def test_a_profile_that_cannot_be_parsed(content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.toml").write_bytes(content)
    code, _, err = run("search --device a.toml --latency 8ms", capsys)
    assert code == 2
    assert "is not valid TOML" in err


@pytest.mark.parametrize(
    ("error", "begin", "end"),
    [
        (ModuleNotFoundError("No", name="torch"), "torch, which is not installed; run: pip", "'edgenas[live]'"),
        (ModuleNotFoundError("No", name="onnx.x"), "onnx, which is not installed; run: pip", "'edgenas[export]'"),
        (
            ImportError("libtorch_cpu.so: failed to map segment from shared object", name="torch._C"),
            "torch, which is installed but cannot be loaded (libtorch_cpu.so: failed to map segment",
            "free some memory, or raise its limit (see: ulimit -v)",
        ),
        (
            ImportError("libGL.so.1: cannot open shared object file", name="PIL"),
            "PIL, which is installed but cannot be loaded (libGL.so.1: ",
            "; run anew: pip install 'edgenas[live]'",
        ),
    ],
)
def test_what_cannot_be_loaded_is_not_called_missing(error: ImportError, begin: str, end: str) -> None:
    said = plugins.lacking(error)
    assert said.startswith(begin)
    assert said.endswith(end)


def test_what_says_that_memory_is_short() -> None:
    assert out_of_memory(MemoryError())
    assert out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."))
    assert out_of_memory(RuntimeError("std::bad_alloc"))
    assert not out_of_memory(RuntimeError("shapes do not fit"))


@pytest.mark.parametrize("limit_mib", [900, 1500])
@pytest.mark.parametrize("command", ["export", "train"])
def test_with_little_memory_a_command_ends_in_a_sentence(trained_run: Path, command: str, limit_mib: int) -> None:
    """Which one depends on how much the libraries of this machine take."""
    run = shutil.copytree(trained_run, "run")
    arguments = {"export": ["export", run, "--format", "onnx", "-o", "out"], "train": ["train", run, "--resume"]}
    limit = limit_mib << 20
    done = subprocess.run(
        [sys.executable, "-c", "from edgenas.cli import main; main()", *map(str, arguments[command])],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    if done.returncode == -signal.SIGABRT:
        pytest.skip("a library of this machine ends the program by itself where it has so little memory")
    assert "Traceback" not in done.stderr
    assert "not installed" not in done.stderr
    assert "is damaged" not in done.stderr
    assert done.returncode in (0, 1, 2, 6, 7), done.stderr
    if done.returncode:
        assert done.stderr.splitlines()[-1].startswith("edgenas: ")
