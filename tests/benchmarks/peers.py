"""Our TFLite files against other converters' for the same nets: `python -m tests.benchmarks.peers --peer-python PATH`.

PATH is the interpreter of another environment with torch and litert-torch, or with onnx2tf and tensorflow:

    python -m venv PEER && PEER/bin/pip install litert-torch

NAS-Bench-201 nets (C = 16, N = 5), a cell of convolutions only and random ones, are converted by both sides to float32
and to full int8 with the same calibration images, and run by this environment's ai-edge-litert on one thread. Latencies
are medians of single runs, ours and theirs in turn, so that whatever else the machine does slows both: read the ratios.
A ratio within a few percent of 1 is none: two copies of one int8 file differ by as much.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import NDArray
from torch import nn

from edgenas.lower import LOWERING_VERSION, lower
from edgenas.lower.quantize import full_int8
from edgenas.lower.tflite import to_tflite
from edgenas.lower.trace import torch_logits
from edgenas.lower.verify import compare, run_model
from edgenas.spaces.nasbench201 import NASBench201
from edgenas.spaces.nasbench201.network import NASBench201Network
from tests.lower.networks import with_statistics

ROOT = Path(__file__).parents[2]
ALL_CONVOLUTIONS = (3, 3, 3, 3, 3, 3)
FORMATS = ("float32", "int8")
PLACINGS = 7
KERNELS = {
    "XNNPACK": OpResolverType.AUTO,
    "built-in": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,  # what runtimes on old boards come down to
}
_KINDS = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--peer-python", type=Path, required=True, help="interpreter with litert-torch or onnx2tf")
    parser.add_argument("--cells", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=int, default=210, help="of each file for its latency")
    parser.add_argument("--keep", type=Path, help="folder to leave all files in")
    options = parser.parse_args()
    torch.set_num_threads(1)
    space, generator = NASBench201(), np.random.default_rng(options.seed)
    cells: list[tuple[int, ...]] = [ALL_CONVOLUTIONS]
    while len(cells) < options.cells:
        arch = space.from_index(int(generator.integers(15625)))
        if space.is_connected(arch) and arch.genes not in cells:
            cells.append(arch.genes)
    images = generator.standard_normal((64, 3, 32, 32), np.float32)
    networks = [trained_like(genes, options.seed + number, images) for number, genes in enumerate(cells)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        results = converted_by_peer(options.peer_python, folder, cells, networks, images[:8])
        print(
            f"EdgeNAS lowering {LOWERING_VERSION} and {results['peer']}; {len(cells)} cells, {options.runs} runs each"
        )
        rows = []
        for number, (genes, network) in enumerate(zip(cells, networks, strict=True)):
            row: dict[str, float] = {}
            for form in FORMATS:
                start = time.perf_counter()
                graph = lower(network, torch.zeros(1, 3, 32, 32))
                ours = to_tflite(graph, {}) if form == "float32" else full_int8(graph, {}, images[:8])
                row[f"{form} conversion"] = results["seconds"][number][form] / (time.perf_counter() - start)
                theirs = (folder / f"{number}.{form}.tflite").read_bytes()
                (folder / f"{number}.{form}.edgenas.tflite").write_bytes(ours)
                row |= _compared(genes, form, ours, theirs, network, images[8:40], options.runs)
            rows.append(row)
    print("\nratio peer / EdgeNAS over the cells: median (smallest, largest); above 1 the peer's is worse")
    for name in rows[0]:
        ratios = [row[name] for row in rows]
        print(f"  {name:28} {median(ratios):8.3f} ({min(ratios):.3f}, {max(ratios):.3f})")


def trained_like(genes: tuple[int, ...], seed: int, images: NDArray[np.float32]) -> nn.Module:
    """The net of `genes` with random weights and scales and the batch statistics of a pass over `images`."""
    torch.manual_seed(seed)
    network = with_statistics(NASBench201Network(genes, 10), seed)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.from_numpy(images))
    return network.eval()


def converted_by_peer(
    python: Path, folder: Path, cells: list[tuple[int, ...]], networks: list[nn.Module], images: NDArray[np.float32]
) -> dict[str, Any]:
    """What peer_conversion.py tells, its files being in `folder`."""
    for number, network in enumerate(networks):
        torch.save(network.state_dict(), folder / f"{number}.pt")
        with warnings.catch_warnings():  # the exporter that reads no control flow is old, and the one onnx2tf expects
            warnings.simplefilter("ignore")
            example = torch.zeros(1, 3, 32, 32)
            torch.onnx.export(
                network, (example,), folder / f"{number}.onnx", dynamo=False, input_names=["input"], opset_version=13
            )
    np.save(folder / "calibration.npy", images)
    (folder / "cells.json").write_text(json.dumps(cells))
    script = Path(__file__).with_name("peer_conversion.py")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    log = folder / "peer.log"
    with log.open("w") as stream:
        command = [str(python), str(script), str(folder)]
        done = subprocess.run(command, env=environment, stdout=stream, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        sys.exit("\n".join([*log.read_text().splitlines()[-20:], "the peer failed"]))
    results: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return results


def operators(model: bytes) -> Counter[str]:
    parsed = schema.ModelT.InitFromPackedBuf(model, 0)
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in parsed.operatorCodes]
    return Counter(_KINDS[codes[op.opcodeIndex]] for graph in parsed.subgraphs for op in graph.operators)


def _compared(
    genes: tuple[int, ...], form: str, ours: bytes, theirs: bytes, network: nn.Module, images: NDArray[np.float32],
    runs: int,
) -> dict[str, float]:  # fmt: skip
    """Ratios peer / EdgeNAS, after printing what they come from."""
    kinds = operators(ours), operators(theirs)
    totals = kinds[0].total(), kinds[1].total()
    ratios = {f"{form} operators": totals[1] / totals[0], f"{form} file size": len(theirs) / len(ours)}
    text = f"operators {totals[0]:3} : {totals[1]:3}  KB {len(ours) / 1e3:5.0f} : {len(theirs) / 1e3:5.0f}"
    for kernels, resolver in KERNELS.items():
        times = latencies_ms(ours, theirs, runs, resolver)
        ratios[f"{form} latency, {kernels}"] = times[1] / times[0]
        text += f"  ms {kernels} {times[0]:5.2f} : {times[1]:5.2f} = {times[1] / times[0]:.3f}"
    expected = torch_logits(network, images)
    errors = [compare(run_model(model, images), expected).relative_error for model in (ours, theirs)]
    differences = [
        f"{kind} {kinds[0][kind]} : {kinds[1][kind]}"
        for kind in sorted(kinds[0] | kinds[1])
        if kinds[0][kind] != kinds[1][kind]
    ]
    print(
        f"{''.join(map(str, genes))} {form:7} {text}  error {errors[0]:.1e} : {errors[1]:.1e}  {', '.join(differences)}"
    )
    return ratios


def latencies_ms(ours: bytes, theirs: bytes, runs: int, resolver: Any) -> tuple[float, float]:
    """Medians of both models' single runs on one thread, in turn: ours, theirs, ours, ...

    Where an interpreter's memory happens to lie changes an int8 latency by several percent, so both models are loaded
    anew PLACINGS times, ours first and theirs first in turn. The placing with the median ratio counts: medians of each
    model by itself could come from a quiet moment and from a busy one.
    """
    medians = []
    for placing in range(PLACINGS):
        order = (0, 1) if placing % 2 == 0 else (1, 0)
        interpreters = {which: _prepared((ours, theirs)[which], resolver) for which in order}
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(runs // PLACINGS):
            for which in order:
                start = time.perf_counter()
                interpreters[which].invoke()
                times[which].append(1e3 * (time.perf_counter() - start))
        medians.append((median(times[0]), median(times[1])))
    return sorted(medians, key=lambda pair: pair[1] / pair[0])[PLACINGS // 2]


def _prepared(model: bytes, resolver: Any) -> Any:
    interpreter = Interpreter(model_content=model, num_threads=1, experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    for _ in range(3):
        interpreter.invoke()
    return interpreter


if __name__ == "__main__":
    main()
