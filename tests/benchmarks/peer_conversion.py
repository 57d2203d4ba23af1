"""The peer's side of tests.benchmarks.peers, run by an interpreter that has a converter of other people's.

`PYTHON peer_conversion.py FOLDER` converts every cell that peers.py wrote into FOLDER: N.float32.tflite, N.int8.tflite,
and results.json with the converter's name and the seconds each took. The first cell is converted twice and the second
time counts, so that nobody is charged for imports.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np


def main(folder: Path) -> None:
    if find_spec("litert_torch") is not None:
        name, convert = "litert-torch", _litert_torch
    elif find_spec("onnx2tf") is not None:
        name, convert = "onnx2tf", _onnx2tf
    else:
        sys.exit(f"{sys.executable} has neither litert-torch nor onnx2tf; pip install one of them there")
    images = np.load(folder / "calibration.npy")
    cells = json.loads((folder / "cells.json").read_text())
    seconds = []
    for number, genes in [(0, cells[0]), *enumerate(cells)]:
        seconds.append(convert(folder, number, genes, images))
    results = {"peer": f"{name} {metadata.version(name)}", "seconds": seconds[1:]}
    (folder / "results.json").write_text(json.dumps(results))


def _litert_torch(folder: Path, number: int, genes: list[int], images: Any) -> dict[str, float]:
    """Channels last at the input, as ours; int8 by ai-edge-quantizer, with its own calibration."""
    torch, litert_torch = import_module("torch"), import_module("litert_torch")
    quantizer, recipe = import_module("ai_edge_quantizer.quantizer"), import_module("ai_edge_quantizer.recipe")
    network_module = import_module("edgenas.spaces.nasbench201.network")
    torch.set_num_threads(2)
    network = network_module.NASBench201Network(tuple(genes), 10)
    network.load_state_dict(torch.load(folder / f"{number}.pt", weights_only=True))
    last = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    start = time.perf_counter()
    channels_last = litert_torch.to_channel_last_io(network.eval(), args=[0]).eval()
    litert_torch.convert(channels_last, (torch.zeros(1, 32, 32, 3),)).export(str(folder / f"{number}.float32.tflite"))
    float32_s = time.perf_counter() - start
    quantising = quantizer.Quantizer((folder / f"{number}.float32.tflite").read_bytes(), recipe.static_wi8_ai8())
    ranges = quantising.calibrate({"serving_default": [{"args_0": image[None]} for image in last]})
    (folder / f"{number}.int8.tflite").write_bytes(quantising.quantize(ranges).quantized_model)
    return {"float32": float32_s, "int8": time.perf_counter() - start}


def _onnx2tf(folder: Path, number: int, genes: list[int], images: Any) -> dict[str, float]:
    """From torch's own ONNX file; int8 by TensorFlow's converter. One run writes both, so both take the same time."""
    onnx2tf = import_module("onnx2tf")
    with tempfile.TemporaryDirectory() as output:
        last = Path(output, "calibration.npy")
        np.save(last, np.ascontiguousarray(images.transpose(0, 2, 3, 1)))
        os.chdir(output)  # where it looks for sample images, which it else downloads even if given others
        np.save("calibration_image_sample_data_20x128x128x3_float32.npy", np.zeros((20, 128, 128, 3), np.float32))
        start = time.perf_counter()
        onnx2tf.convert(
            input_onnx_file_path=str(folder / f"{number}.onnx"),
            output_folder_path=output,
            copy_onnx_input_output_names_to_tflite=True,
            output_integer_quantized_tflite=True,
            custom_input_op_name_np_data_path=[["input", str(last), [[[[0, 0, 0]]]], [[[[1, 1, 1]]]]]],
            non_verbose=True,
        )
        both_s = time.perf_counter() - start
        shutil.copy(Path(output, f"{number}_float32.tflite"), folder / f"{number}.float32.tflite")
        shutil.copy(Path(output, f"{number}_full_integer_quant.tflite"), folder / f"{number}.int8.tflite")
    return {"float32": both_s, "int8": both_s}


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
