"""What asking a board costs, and whether the agent's times are a bare loop's: `python -m tests.benchmarks.boards`.

Round trips to the real agent on this computer and over a real sshd on the loopback interface; what each step of a
candidate takes in a live search, inference excluded; one model timed by the agent and by a bare loop in a process of
its own, turn by turn; and the same model timed twice by the screening tier. Needs an idle machine and openssh-server.
"""

from __future__ import annotations

import argparse
import getpass
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from edgenas import device as devices
from edgenas.board.check import round_trip_ms
from edgenas.board.local import Local
from edgenas.board.measure import Bench, Failed, Tier
from edgenas.board.model import Model
from edgenas.board.pool import BoardPool
from edgenas.board.session import WORK, AgentSession
from edgenas.board.store import Store
from edgenas.cost.live import LiveCost
from edgenas.spaces.nasbench201 import NASBench201
from tests.board import sshd

# The floor that the agent is compared with: nothing between the runtime and the clock.
BARE_LOOP = """
import json, sys, time
import numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
name = session.get_inputs()[0].name
image = numpy.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype("float32")
def timed(seconds):
    samples, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter_ns()
        session.run(None, {name: image})
        samples.append(time.perf_counter_ns() - start)
    return samples
timed(0.5)
print(json.dumps(timed(float(sys.argv[2]))))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cells", type=int, default=30, help="candidates whose overhead is measured")
    parser.add_argument("--rounds", type=int, default=7, help="turns of agent and bare loop")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        transports: dict[str, Callable[[], Any]] = {"local": lambda: Local(folder / "board")}
        if sshd.SSHD.exists():
            # Whoever runs this: another user could not enter this interpreter, which has the runtimes.
            if not (Path.home() / WORK).exists():
                stack.callback(shutil.rmtree, Path.home() / WORK, ignore_errors=True)
            transports["SSH, loopback"] = stack.enter_context(sshd.server(getpass.getuser(), Path.home())).connect
        print("agent's round trip, nothing asked, ms (asked: 5 local, 20 SSH)")
        for name, connect in transports.items():
            session = AgentSession(connect(), sys.executable)
            print(f"  {name:16} median {round_trip_ms(session, 200):.2f}")
            session.close()
        for name, connect in transports.items():
            _overhead(name, connect, folder / name, options.cells)
        _agreement(folder, options.rounds)


def _overhead(name: str, connect: Callable[[], Any], folder: Path, count: int) -> None:
    """Each step that a candidate takes besides inferences, one after another; a search overlaps the first with them."""
    device, space = devices.load("host"), NASBench201()
    archs = [space.canonical(each) for each in space.all_architectures()[:: 15625 // (count + 2)]]
    archs = [arch for arch in dict.fromkeys(archs) if space.is_connected(arch)][:count]
    live = LiveCost(space, "cifar10", device, BoardPool([], device, Store(folder)))
    session = AgentSession(connect(), sys.executable)
    session.lease(3600)
    live.model(archs[0])  # imports
    steps: dict[str, list[float]] = {"build, lower, write, check": [], "push": [], "load, golden check": []}
    # Nothing but the golden check and one inference: what is left of the plan is no inference.
    plan = {"warmup_runs": 0, "warmup_s": 0, "repeats": 1, "min_repeat_ms": 0, "min_runs": 1, "max_repeat_s": 1}
    for arch in archs:
        started_s = time.perf_counter()
        model = live.model(arch)
        built_s = time.perf_counter()
        assert model.golden is not None
        golden = {
            "input": session.put(model.golden.source, ".input").reference(),
            "output": session.put(model.golden.target, ".output").reference(),
            "relative_error": model.golden.relative_error,
        }
        file = {**session.put(model.content, ".onnx").reference(), "format": "onnx"}
        pushed_s = time.perf_counter()
        raw = session.time(
            60, model=file, runtime="onnxruntime", threads=1, affinity=None, plan={**plan, "pause_s": 0}, fresh=False,
            golden=golden, prepare=False,
        )  # fmt: skip
        ended_s = time.perf_counter()
        inferences_s = (raw["first_ns"] * 2 + raw["samples_ns"][0][0]) / 1e9  # first, golden, the sample
        steps["build, lower, write, check"].append(built_s - started_s)
        steps["push"].append(pushed_s - built_s)
        steps["load, golden check"].append(ended_s - pushed_s - inferences_s)
    session.close()
    whole = [sum(parts) * 1e3 for parts in zip(*steps.values(), strict=True)]
    print(f"\noverhead of a candidate, {name}, {len(archs)} cells, ms (asked: 150)")
    for step, lasted_s in steps.items():
        print(f"  {step:28} median {median(lasted_s) * 1e3:6.1f}")
    print(f"  {'all':28} median {median(whole):6.1f}   largest {max(whole):.1f}")


def _agreement(folder: Path, rounds: int) -> None:
    device, space = devices.load("host"), NASBench201()
    arch = space.parse("|nor_conv_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|none~0|nor_conv_3x3~1|nor_conv_3x3~2|")
    model = LiveCost(space, "cifar10", device, BoardPool([], device, Store(folder))).model(arch)
    path = folder / "model.onnx"
    path.write_bytes(model.content)
    tier = Tier.screen(device.measurement)  # type: ignore[arg-type]
    session = AgentSession(Local(folder / "board"), sys.executable)
    session.lease(3600)
    bench = Bench(session, device, "here", 1, Store(folder / "measured"))
    agent_ms, bare_ms = [], []
    for _ in range(rounds):
        agent_ms.append(_agent(bench, model, tier))
        command = [sys.executable, "-c", BARE_LOOP, str(path), "0.5"]
        printed = subprocess.run(command, check=True, capture_output=True, timeout=120).stdout
        bare_ms.append(float(np.median(json.loads(printed))) / 1e6)
    ratio = median(agent_ms) / median(bare_ms)
    print(f"\nthe same model, median of {rounds} turns, ms (asked: within 3 %)")
    print(f"  bare loop {median(bare_ms):.3f}   agent {median(agent_ms):.3f}   ratio {ratio:.3f}")
    print(f"  turn by turn: {', '.join(f'{a / b:.3f}' for a, b in zip(agent_ms, bare_ms, strict=True))}")
    print("\ntimed again by the screening tier, with the reference before and after (asked: within 2 %, or a warning)")
    for turn in range(3):
        found = []
        for half in range(2):
            fresh = Bench(session, device, "here", 1, Store(folder / f"twice-{turn}-{half}"))
            (outcome,) = fresh([model], tier)
            assert not isinstance(outcome, Failed), outcome
            found.append(outcome.summary)
        apart = found[1].median_ms / found[0].median_ms - 1
        words = [each.warnings[0] if each.warnings else "narrow" for each in found]
        print(f"  {found[0].median_ms:.3f} and {found[1].median_ms:.3f} ms: {apart:+.1%} ({'; '.join(words)})")
    session.close()


def _agent(bench: Bench, model: Model, tier: Tier) -> float:
    """The median of one screening without the reference around it."""
    reply = bench._time(model, tier, 0)
    return float(np.median(np.concatenate([np.array(each) for each in reply["samples_ns"]]))) / 1e6


if __name__ == "__main__":
    main()
