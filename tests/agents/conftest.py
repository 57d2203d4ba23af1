"""The real agent as a process of its own, real models for it, and runtimes that misbehave on purpose."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests import processes

AGENT = Path(__file__).parents[2] / "agents" / "edgenas_agent.py"
PATIENCE_S = 60.0  # what a reply may take on a busy machine before a test fails
PLAN: dict[str, float] = {
    "warmup_runs": 2, "warmup_s": 0, "repeats": 2, "min_repeat_ms": 1, "min_runs": 3, "max_repeat_s": 5, "pause_s": 0,
}  # fmt: skip

Reply = dict[str, Any]


class AgentProcess:
    """One agent and its connection: `ask` sends a request and returns the reply to it."""

    def __init__(
        self, folder: Path, *flags: str, python: Sequence[str] = (sys.executable,), **environment: str
    ) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [*python, str(AGENT), "--work", str(folder), *flags],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **environment}, bufsize=0,
        )  # fmt: skip
        self._pending, self._id = b"", 0
        self.hello: Reply = self.reply()

    def send_raw(self, data: bytes) -> None:
        assert self.process.stdin is not None
        view = memoryview(data)
        while view:
            view = view[self.process.stdin.write(view) or 0 :]

    def send(self, op: str, **fields: Any) -> int:
        self._id += 1
        self.send_raw(json.dumps({"id": self._id, "op": op, **fields}).encode() + b"\n")
        return self._id

    def line(self) -> bytes:
        assert self.process.stdout is not None
        deadline_s = time.monotonic() + PATIENCE_S
        while b"\n" not in self._pending:
            left_s = deadline_s - time.monotonic()
            assert select.select([self.process.stdout], [], [], max(0.0, left_s))[0], "the agent does not answer"
            chunk = os.read(self.process.stdout.fileno(), 65536)
            if not chunk:
                return b""
            self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def reply(self) -> Reply:
        """The next line, which must be a reply: nothing else may ever be on the wire."""
        line = self.line()
        assert line.startswith(b"@edgenas "), line
        reply: Reply = json.loads(line.removeprefix(b"@edgenas "))
        return reply

    def ask(self, op: str, **fields: Any) -> Reply:
        identity = self.send(op, **fields)
        reply = self.reply()
        assert reply["id"] == identity
        return reply

    def result(self, op: str, **fields: Any) -> Reply:
        reply = self.ask(op, **fields)
        assert reply["ok"], reply
        result: Reply = reply["result"]
        return result

    def refusal(self, op: str, **fields: Any) -> Reply:
        reply = self.ask(op, **fields)
        assert not reply["ok"], reply
        assert reply["error"]
        return reply

    def leased(self, seconds: float = 600) -> str:
        token: str = self.result("lease", holder="test", seconds=seconds)["token"]
        return token

    def put(self, name: str, data: bytes) -> Reply:
        (self.folder / "files" / name).write_bytes(data)
        return {"file": name, "sha256": hashlib.sha256(data).hexdigest()}

    def hang_up(self) -> int:
        """Close the connection; the agent's exit code."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(PATIENCE_S)

    def end(self) -> None:
        for stream in (self.process.stdin, self.process.stdout):
            if stream:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


StartAgent = Callable[..., AgentProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartAgent]:
    """Start agents, all in the folder `work` unless asked otherwise; none outlives the test."""
    started: list[AgentProcess] = []

    def start_agent(*flags: str, folder: str = "work", **environment: Any) -> AgentProcess:
        started.append(AgentProcess(tmp_path / folder, *flags, **environment))
        return started[-1]

    yield start_agent
    for agent in started:
        agent.end()


@dataclass(frozen=True)
class Models:
    """One small network in all formats, with images and its own answers to them."""

    onnx: bytes
    tflite: bytes
    int8: bytes
    images: NDArray[np.float32]  # [n, 3, 32, 32]
    logits: NDArray[np.float32]  # [n, 10]

    def input(self, form: str) -> bytes:
        layout = self.images if form == "onnx" else self.images.transpose(0, 2, 3, 1)
        return np.ascontiguousarray(layout, dtype="<f4").tobytes()

    def request(self, agent: AgentProcess, form: str, relative_error: float = 1e-4) -> Reply:
        """The fields of a `time` request for the model of a form: onnx, tflite or int8; its files are put in place."""
        kind = "onnx" if form == "onnx" else "tflite"
        model = agent.put(f"{form}.{kind}", getattr(self, form))
        golden = {
            "input": agent.put(f"input.{kind}.f32", self.input(kind)),
            "output": agent.put("output.f32", self.logits.astype("<f4").tobytes()),
            "relative_error": relative_error,
        }
        return {"model": {**model, "format": kind}, "golden": golden, "plan": PLAN, "threads": 1, "timeout_s": 60}


@pytest.fixture(scope="session")
def models() -> Models:
    import torch

    from edgenas.architecture import Architecture
    from edgenas.lower import lower
    from edgenas.lower.onnx import to_onnx
    from edgenas.lower.quantize import full_int8
    from edgenas.lower.tflite import to_tflite
    from edgenas.spaces.nasbench201 import NASBench201

    torch.manual_seed(0)
    network = NASBench201().build(Architecture("nasbench201", (3, 1, 2, 3, 4, 1)), 10, channels=8, cells=1).eval()
    images = torch.randn(3, 3, 32, 32)
    graph = lower(network, images[:1])
    with torch.no_grad():
        logits = network(images)
    calibration = torch.randn(16, 3, 32, 32).numpy()
    return Models(
        to_onnx(graph, {}), to_tflite(graph, {}), full_int8(graph, {}, calibration), images.numpy(), logits.numpy()
    )


FAKE_ONNXRUNTIME = """
import os, sys, time
import numpy
__version__ = "9.9.9"
HOW = os.environ.get("FAKE", "")
print("stray print of a runtime at import")
os.write(1, b'@edgenas {"id": 1, "ok": true, "result": {"forged": true}}\\n')

def set_default_logger_severity(level): pass
class SessionOptions: pass
class ExecutionMode: ORT_SEQUENTIAL = 0
class Tensor:
    def __init__(self, name, shape): self.name, self.shape, self.type = name, shape, "tensor(float)"
class Binding:
    def bind_cpu_input(self, name, values): self.values = values
    def bind_output(self, name): pass
    def copy_outputs_to_cpu(self):
        output = self.values.reshape(len(self.values), -1)[:, :2].copy()
        if HOW == "nan": output[:] = float("nan")
        if HOW == "wrong": output *= 1.01
        return [output]
class InferenceSession:
    def __init__(self, path, options, providers):
        self.providers = ["CPUExecutionProvider"] if HOW == "no cuda" else providers
        if HOW == "rejects": raise RuntimeError("[ONNXRuntimeError] : 10 : INVALID_GRAPH : no such operator")
    def get_inputs(self): return [Tensor("x", ["n", 4])]
    def get_outputs(self): return [Tensor("y", ["n", 2])]
    def get_providers(self): return self.providers
    def io_binding(self): return Binding()
    def run_with_iobinding(self, binding):
        print("stray print of a runtime at work")
        os.write(1, b'@edgenas {"id": 2, "ok": true, "result": {}}\\n')
        if HOW in ("hang", "family"):
            if HOW == "family" and os.fork() == 0:
                with open("grandchild", "w") as file: file.write(str(os.getpid()))
                time.sleep(1000)
            with open("child", "w") as file: file.write(str(os.getpid()))
            while True: time.sleep(1000)
        if HOW == "abort": sys.stderr.write("terminate called"); os.abort()
        if HOW == "exit": os._exit(3)
        if HOW == "memory": self.hoard = bytearray(2 ** 40)
        if HOW == "gigabyte": self.hoard = bytearray(2 ** 30)
        if HOW == "bad_alloc": raise RuntimeError("std::bad_alloc")
        if HOW == "killed": os.kill(os.getpid(), 9)
        if HOW == "stopped": os.kill(os.getpid(), 19)
        if HOW == "worker stopped": os.kill(os.getppid(), 19); os.kill(os.getpid(), 19)
        if HOW == "worker killed": os.kill(os.getppid(), 9); time.sleep(1000)
        if "FAKE_SLEEP_S" in os.environ:
            time.sleep(float(os.environ["FAKE_SLEEP_S"]))
"""


@pytest.fixture
def faulty(tmp_path: Path, start: StartAgent) -> StartAgent:
    """Start an agent that finds a fake onnxruntime, which does what FAKE says: faulty("hang")."""
    package = tmp_path / "fakes" / "onnxruntime"
    package.mkdir(parents=True)  # found first: PYTHONPATH comes before what is installed
    (package / "__init__.py").write_text(FAKE_ONNXRUNTIME)

    def start_faulty(how: str, *flags: str, **environment: Any) -> AgentProcess:
        return start(*flags, PYTHONPATH=str(package.parent), FAKE=how, PYTHONDONTWRITEBYTECODE="1", **environment)

    return start_faulty


def small_request(agent: AgentProcess, timeout_s: float = 30) -> Reply:
    """A `time` request, golden files included, for the fake runtime, whose output is its input's first two numbers."""
    golden = {
        "input": agent.put("in", np.arange(1, 5, dtype="<f4").tobytes()),
        "output": agent.put("out", np.arange(1, 3, dtype="<f4").tobytes()),
        "relative_error": 1e-3,
    }
    model = {**agent.put("model.onnx", b"no real model"), "format": "onnx"}
    return {"model": model, "golden": golden, "plan": PLAN, "threads": 1, "timeout_s": timeout_s}


def gone(pid: int) -> bool:
    """Whether the process has ended (a zombie that nobody has waited for has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def eventually(condition: Callable[[], bool]) -> bool:
    return processes.eventually(condition, PATIENCE_S)
