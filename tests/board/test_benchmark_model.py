"""What benchmark_model prints, old and new, whole and broken; and the tool run over adb."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgenas.board.adb import Adb
from edgenas.board.benchmark_model import command, parse
from edgenas.board.transport import output
from edgenas.errors import BoardError
from tests.board.fake_adbd import FakePhone
from tests.board.sshd import PATIENCE_S

OLD = """STARTING!
Log parameter values verbosely: [0]
Num threads: [1]
Graph: [/data/local/tmp/model.tflite]
#threads used for CPU inference: [1]
Loaded model /data/local/tmp/model.tflite
INFO: Initialized TensorFlow Lite runtime.
The input model file size (MB): 11.983
Initialized session in 20.283ms.
Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
count=2 first=339304 curr=266325 min=266325 max=339304 avg=302814 std=36489

Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
count=50 first=266601 curr=266931 min=265837 max=268116 avg=266473 std=419

Inference timings in us: Init: 20283, First inference: 339304, Warmup (avg): 302814, Inference (avg): 266473
Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE.
Memory footprint delta from the start of the tool (MB): init=0 overall=24.5
"""
NEW = """INFO: STARTING!
INFO: Loaded model /data/local/tmp/edgenas/model.tflite
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
INFO: The input model file size (MB): 1.2
INFO: Initialized session in 3.337ms.
INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
INFO: count=9 first=81913 curr=56299 min=54669 max=81913 avg=58984.7 std=8115 p5=54669 median=56001 p95=81913

INFO: Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
INFO: count=1061 first=56576 curr=56299 min=54669 max=60236 avg=56265.8 std=982 p5=55010 median=56211 p95=57900

INFO: Inference timings in us: Init: 3337, First inference: 81913, Warmup (avg): 58984.7, Inference (avg): 56265.8
INFO: Overall peak memory footprint (MB) via periodic monitoring: 93.2383
"""


def test_old_versions() -> None:
    timing = parse(OLD, "adb X")
    assert (timing.runs, timing.mean_ns, timing.std_ns) == (50, 266_473_000, 419_000)
    assert (timing.min_ns, timing.max_ns, timing.median_ns) == (265_837_000, 268_116_000, None)
    assert (timing.init_ns, timing.first_ns) == (20_283_000, 339_304_000)
    assert (timing.peak_memory_kb, timing.memory_growth_kb) == (None, 25_088)


def test_new_versions() -> None:
    timing = parse(NEW, "adb X")
    assert timing.mean_ns == pytest.approx(56_265_800)
    assert (timing.p5_ns, timing.median_ns, timing.p95_ns) == (55_010_000, 56_211_000, 57_900_000)
    assert timing.peak_memory_kb == round(93.2383 * 1024)


@pytest.mark.parametrize(
    ("statistics", "mean", "runs", "mean_us"),
    [
        ("count=1 curr=2150 p5=2150 median=2150 p95=2150", "2150", 1, 2150),
        ("count=40 curr=3(all same) p5=3 median=3 p95=3", "3", 40, 3),
        (
            "count=5 first=1234567 curr=1234571 min=1234567 max=1234571 avg=1.23457e+06 std=2",
            "1.23457e+06",
            5,
            1_234_570,
        ),
    ],
)
def test_unusual_statistics(statistics: str, mean: str, runs: int, mean_us: float) -> None:
    start, _, _ = OLD.partition("count=50")
    timing = parse(
        f"{start}{statistics}\n\nInference timings in us: Init: 9, First inference: 9, Warmup (avg): 9, "
        f"Inference (avg): {mean}\n",
        "adb X",
    )
    assert timing.runs == runs
    assert timing.mean_ns == pytest.approx(mean_us * 1e3)
    assert timing.min_ns <= timing.mean_ns * 1.00001


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("Inference timings in us", "Inference timing"), "did not finish"),
        (("count=50 first=266601 curr=266931 min=265837 max=268116 avg=266473 std=419", ""), "two means|out of order"),
        (("count=50 ", "count=0 "), "no run that took time"),
        (("min=265837", "min=0"), "no run that took time"),
        (("min=265837", "min=-265837"), "min = -265837"),
        (("avg=266473", "avg=nan"), "avg = nan"),
        (("max=268116", "max=260000"), "out of order"),
        (("std=419", "std=99999"), "a deviation of"),
        (("Inference (avg): 266473", "Inference (avg): 266.473"), "two means"),
        (("min=265837 ", ""), "no .*min|cannot be"),
        (("Init: 20283", "Init: inf"), "init = inf"),
    ],
)
def test_nonsense_is_refused(change: tuple[str, str], message: str) -> None:
    assert change[0] in OLD
    with pytest.raises(BoardError, match=message):
        parse(OLD.replace(*change), "adb X")


def test_the_reason_of_a_failure_is_reported() -> None:
    with pytest.raises(BoardError, match=r"adb X: benchmark_model did not finish: ERROR: Failed to load model m\.tfl"):
        parse("STARTING!\nERROR: Failed to load model m.tflite\n", "adb X")
    with pytest.raises(BoardError, match="it printed nothing"):
        parse("", "adb X")


def test_command_line() -> None:
    argv = command(
        "./benchmark_model", "m.tflite", runs=10, min_s=0.1, max_s=5, warmup_runs=3, warmup_s=0.5, affinity=[4, 5, 7]
    )
    assert argv[:3] == ["taskset", "b0", "./benchmark_model"]
    assert {"--graph=m.tflite", "--num_threads=1", "--num_runs=10", "--min_secs=0.1"} <= set(argv)
    assert not any("xnnpack" in each for each in argv)


def test_over_adb(phone: FakePhone, adb_server_port: int, tmp_path: Path) -> None:
    tool, model = tmp_path / "tool", tmp_path / "model.tflite"
    tool.write_bytes(Path(__file__).with_name("emulated_benchmark_model.py").read_bytes())
    tool.chmod(0o755)
    model.write_bytes(bytes(4) + b"TFL3" + bytes(100))
    board = Adb(phone.serial, server_port=adb_server_port)
    board.push(tool, "benchmark_model", 20.0)
    board.push(model, "models/model.tflite", 20.0)

    def timed(name: str) -> str:
        argv = command(
            "./benchmark_model",
            name,
            runs=20,
            min_s=0.05,
            max_s=20,
            warmup_runs=2,
            warmup_s=0.01,
            affinity=[0],
            peak_memory=True,
        )
        done = output(board, argv, PATIENCE_S)
        return done.stdout.decode() + done.stderr

    timing = parse(timed("models/model.tflite"), board.address)
    assert timing.runs >= 20
    assert timing.min_ns >= 2_000_000, "an inference sleeps for 2 ms"
    assert timing.peak_memory_kb == round(13.1797 * 1024)
    with pytest.raises(BoardError, match=r"did not finish: ERROR: Benchmarking failed"):
        parse(timed("models/none.tflite"), board.address)
    board.close()
