"""Stand-ins for what few boards and computers have: an Edge TPU with its delegate and compiler, TensorRT's tool, and
times that nothing disturbs.

Where no model has to run, a null board (edgenas.board.null) does. These boards have the real agent: what is tested by
them is that it finds, opens and checks such runtimes, and that what it computes is right.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

COMPILED = b"edgetpu-custom-op"
_LOG = """Edge TPU Compiler version 16.0.384591198
On-chip memory used for caching model parameters: 4.50MiB
Off-chip memory used for streaming uncached model parameters: 0.00B
Number of Edge TPU subgraphs: 1

Operator                       Count      Status

CONV_2D                        2          Mapped to Edge TPU
"""
# A TFLite file ends where it says, so what is behind that harms no interpreter: the real one computes what an Edge TPU
# would, once it was given the delegate.
_COMPILER = f"""#!/bin/sh
for model; do :; done
case "$(head -c 8 "$model" | tail -c 4)" in (TFL3) ;; (*) echo "Invalid model: $model" >&2; exit 1;; esac
(cat "$model"; printf {COMPILED.decode()}) > "$3/model_edgetpu.tflite"
cat <<'END'
{_LOG}END
"""
_INTERPRETER = f"""
import os
from ai_edge_litert.interpreter import Interpreter as Real

def load_delegate(path):
    with open(path): return "delegate"

class Interpreter(Real):
    def __init__(self, model_path, num_threads=1, experimental_delegates=None):
        with open(model_path, "rb") as file: compiled = {COMPILED!r} in file.read()
        if compiled and experimental_delegates != ["delegate"]:
            raise RuntimeError("Encountered unresolved custom op: edgetpu-custom-op.")
        with open(os.environ["EDGETPU_LOG"], "a") as log: log.write("%s\\n" % ("tpu" if compiled else "cpu"))
        super().__init__(model_path=model_path, num_threads=num_threads)
"""
# Takes as long as it says, or its times would not be believed.
_TRTEXEC = """#!/bin/sh
echo "$@" >> "$TRTEXEC_LOG"
for argument; do case "$argument" in
    --onnx=*) [ -s "${argument#*=}" ] || exit 1;;
    --saveEngine=*) echo engine > "${argument#*=}";;
    --loadEngine=*) [ -s "${argument#*=}" ] || exit 1;;
    --exportTimes=*)
      sleep 0.06
      { printf '[{"latencyMs": 5.0}'; for i in 2 3 4 5 6 7 8 9 10; do printf ', {"latencyMs": 5.0}'; done; echo ']'
      } > "${argument#*=}";;
    --exportOutput=*) echo "[{\\"name\\": \\"$TRTEXEC_NAME\\", \\"values\\": [$TRTEXEC_OUTPUT]}]" > "${argument#*=}";;
esac; done
"""
# Only the agent knows of --sysfs.
_PYTHON = """#!/bin/sh
case " $* " in (*" --work "*) set -- "$@" --sysfs {sysfs};; esac
exec {python} "$@"
"""
# Each Python that the board starts has a clock that goes on by what an inference is said to take, a longer one for a
# larger file, whenever it is looked at, and sleeps as long, for samples must fit into the time that they took.
_STEADY = """
import os
import sys
import time

now_ns = 0

def perf_counter_ns():
    global now_ns
    frame = sys._getframe(1)
    while frame is not None and not hasattr(frame.f_locals.get("self"), "model"):
        frame = frame.f_back
    assert frame is not None, "the agent times models in a method of its ModelJob"
    took_ns = 1000000 + os.path.getsize(frame.f_locals["self"].model)
    time.sleep(took_ns / 1e9)
    now_ns += took_ns
    return now_ns

time.perf_counter_ns = perf_counter_ns
"""


def executable(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def compiler(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put an edgetpu_compiler on PATH."""
    executable(folder / "edgetpu_compiler", _COMPILER)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


class StandInBoard:
    """What a board of this computer's own is made of: `options` of the local transport, and `python`.

    `coral`: with an Edge TPU; `tensorrt`: with trtexec, which answers `output`. `log` has what these were asked for.
    `steady`: each inference takes a millisecond and a nanosecond for each byte of the model's file, however busy this
    computer is.
    """

    def __init__(
        self,
        folder: Path,
        *,
        coral: bool = False,
        tensorrt: bool = False,
        steady: bool = False,
        output: Sequence[float] = (),
        output_name: str = "y",
    ) -> None:
        self.log = folder / "log"
        environment = {"EDGETPU_LOG": str(self.log), "TRTEXEC_LOG": str(self.log), "PYTHONDONTWRITEBYTECODE": "1"}
        sysfs = folder / "sys"
        sysfs.mkdir(parents=True)
        if coral:
            device = sysfs / "bus" / "usb" / "devices" / "1-1"
            device.mkdir(parents=True)
            (device / "idVendor").write_text("18d1\n")
            (device / "idProduct").write_text("9302\n")
            package = folder / "packages" / "tflite_runtime"
            package.mkdir(parents=True)
            (package / "__init__.py").write_text("__version__ = '2.5.0'")
            (package / "interpreter.py").write_text(_INTERPRETER)
            library = folder / "lib" / "libedgetpu.so.1"
            library.parent.mkdir()
            library.write_text("no real library")
            environment |= {"PYTHONPATH": str(package.parent), "LD_LIBRARY_PATH": str(library.parent)}
        if steady:
            clock = folder / "steady" / "sitecustomize.py"
            clock.parent.mkdir()
            clock.write_text(_STEADY)
            known = [environment["PYTHONPATH"]] if coral else []
            environment |= {"PYTHONPATH": os.pathsep.join([str(clock.parent), *known])}
        if tensorrt:
            tools = executable(folder / "tools" / "trtexec", _TRTEXEC).parent
            environment |= {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
            environment |= {"TRTEXEC_OUTPUT": ", ".join(repr(float(value)) for value in output)}
            environment |= {"TRTEXEC_NAME": output_name}
        self.options = {"home": str(folder / "home"), "environment": environment}
        # So that it sees its own devices and not this computer's.
        self.python = str(executable(folder / "python", _PYTHON.format(python=sys.executable, sysfs=sysfs)))

    @property
    def asked(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []
