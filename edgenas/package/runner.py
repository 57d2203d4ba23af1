"""Classify images with the models beside this file, or check the models themselves.

    python run.py photo.png                      the likeliest classes, by the first model that can run here
    python run.py --model model_int8.tflite *.npy
    python run.py --self-check                   run every model on the golden images and compare

Needs Python 3.6 or newer, numpy, and one runtime: onnxruntime for .onnx, ai-edge-litert or tflite-runtime for .tflite.
Reads PNG, PPM, PGM and NPY (uint8, height x width x 3) by itself, other formats where Pillow is installed, to the same
pixels as the training did.
Exit codes: 0 done, 1 a check failed, 2 usage, an unreadable image, or no runtime.
"""
# mypy: allow-untyped-defs, allow-untyped-calls
# No annotations: numpy.typing is younger than the oldest numpy this runs with.

import argparse
import json
import os
import re
import sys

import numpy as np

from edgenas.data.pixels import UnreadableError, read_image  # a package's run.py has the text of that file here

MAX_MANIFEST_BYTES = 1 << 24


class FailureError(Exception):
    """What the user reads, in one sentence."""


class Guard:
    """A text stream through which no name in a package, and no word of a runtime, moves the terminal or is too much for
    its alphabet: what cannot be printed is written as an escape of JSON, such as \\u001b, so JSON stays what it is."""

    def __init__(self, stream):
        self._stream = stream

    def write(self, text):
        shown = "".join(each if each.isprintable() or each in "\n\t" else _escaped(each) for each in text)
        alphabet = getattr(self._stream, "encoding", None) or "ascii"
        self._stream.write(shown.encode(alphabet, "backslashreplace").decode(alphabet))
        return len(text)

    def __getattr__(self, name):
        return getattr(self._stream, name)


def _escaped(character):
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join("\\u{:02x}{:02x}".format(*units[i : i + 2]) for i in range(0, len(units), 2))


def _one_line(text):
    return " ".join(str(text).split())


class LoadedModel:
    """A model file and the runtime that executes it; raises ImportError where no runtime for it is installed."""

    def __init__(self, folder, record):
        self.record = record
        path = os.path.join(folder, record["file"])
        self._run = _onnx(path) if record["file"].endswith(".onnx") else _tflite(path)

    def __call__(self, images, normalisation):
        """Logits float32 (n, classes) of `images` uint8 (n, height, width, 3)."""
        mean, std = (np.asarray(normalisation[name], np.float32) for name in ("mean", "std"))
        source, target = self.record["input"], self.record["output"]
        results = []
        for image in images:
            scaled = (image[None].astype(np.float32) / np.float32(255) - mean) / std
            if source["layout"] == "NCHW":
                scaled = scaled.transpose(0, 3, 1, 2)
            result = self._run(np.ascontiguousarray(_quantise(scaled, source)))
            if target["dtype"] == "int8":
                result = (result.astype(np.float32) - target["zero_point"]) * np.float32(target["scale"])
            results.append(result)
        return np.concatenate(results)


def _quantise(values, tensor):
    if tensor["dtype"] != "int8":
        return values
    return np.clip(np.rint(values / tensor["scale"]) + tensor["zero_point"], -128, 127).astype(np.int8)


def _onnx(path):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda values: session.run(None, {name: values})[0]


def _tflite(path):
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        from tflite_runtime.interpreter import Interpreter
    interpreter = Interpreter(model_path=path, num_threads=1)
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]["index"]
    target = interpreter.get_output_details()[0]["index"]

    def run(values):
        interpreter.set_tensor(source, values)
        interpreter.invoke()
        return interpreter.get_tensor(target)

    return run


def check(folder, manifest, record):
    """What became of one model on the golden images: a dict with "file", "passed" (None: not run) and "detail"."""
    try:
        passed, detail = _compared(folder, manifest, record)
    except ImportError:
        passed, detail = None, "not run: needs " + " or ".join(map(str, record["runtimes"]))
    except Exception as error:  # of a damaged file, in which runtimes and numpy fail in any way
        passed, detail = False, f"does not run ({_one_line(error)})"
    return {"file": record["file"], "passed": passed, "detail": detail}


def _compared(folder, manifest, record):
    """Whether one model does on the golden images what it did where it was made, and how well, in words."""
    model = LoadedModel(folder, record)
    images = np.load(os.path.join(folder, manifest["golden"]["input"]), allow_pickle=False)
    expected = np.load(os.path.join(folder, manifest["golden"]["output"]), allow_pickle=False)
    logits = model(images, manifest["preprocessing"])
    largest = np.abs(expected).max(axis=1)
    errors = np.abs(logits - expected).max(axis=1) / np.where(largest > 0, largest, 1)
    error = float(errors.max()) if np.isfinite(logits).all() else float("inf")
    agreed = int((logits.argmax(axis=1) == np.asarray(manifest["golden"]["top1"])).sum())
    tolerance = record["golden_tolerance"]
    return agreed == len(images) and error <= tolerance, (
        f"{agreed} of {len(images)} golden images in their class, relative error {error:.2g} (at most {tolerance:.2g})"
    )


def read_images(paths, height, width):
    """The images at `paths` as uint8 (n, height, width, 3). Raises FailureError naming all that cannot be read."""
    images, unreadable = [], []
    for path in paths:
        try:
            images.append(read_image(path, height, width)[0])
        except UnreadableError as error:
            unreadable.append(f"{path} ({error})")
    if unreadable:
        raise FailureError("cannot be read as an image: {}".format(", ".join(unreadable)))
    return np.stack(images)


def classify(folder, manifest, records, paths, count):
    """For each image the `count` likeliest classes: {"image", "model", "classes": [{"name", "probability"}]}."""
    try:
        size = int(manifest["preprocessing"]["height"]), int(manifest["preprocessing"]["width"])
    except (KeyError, TypeError, ValueError) as error:
        raise FailureError("manifest.json is damaged; unpack the archive again") from error
    images = read_images(paths, *size)
    for record in records:
        try:
            logits = LoadedModel(folder, record)(images, manifest["preprocessing"]).astype(np.float64)
            exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
            shares = exponentials / exponentials.sum(axis=1, keepdims=True)
            return [
                {
                    "image": path,
                    "model": record["file"],
                    "classes": [
                        {"name": manifest["classes"][i], "probability": round(float(share[i]), 4)}
                        for i in np.argsort(-share)[:count]
                    ],
                }
                for path, share in zip(paths, shares)  # noqa: B905  (Python 3.10)
            ]
        except ImportError:
            continue
        except Exception as error:  # of a damaged file, in which runtimes fail in any way
            raise FailureError("{} does not run ({})".format(record["file"], error)) from error
    raise FailureError("no runtime for these models is installed; run: pip install ai-edge-litert (or onnxruntime)")


def main():
    lines = (__doc__ or "").splitlines()
    parser = argparse.ArgumentParser(
        description=lines[0], epilog="\n".join(lines[2:]), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="image files")
    parser.add_argument("--model", help="this model file only (default: the first that can run here)")
    parser.add_argument("--self-check", action="store_true", help="compare the models with the golden output")
    parser.add_argument("--top", type=int, default=1, metavar="N", help="show the N likeliest classes (default 1)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--folder", default=os.path.dirname(os.path.abspath(__file__)), help="of manifest.json")
    asked = parser.parse_args()
    try:
        return _main(asked, parser)
    except FailureError as failure:
        print(f"run.py: {_one_line(failure)}", file=sys.stderr)
        return 2


def _manifest(folder):
    """What manifest.json in `folder` says, as far as it is used here."""
    path = os.path.join(folder, "manifest.json")
    try:
        with open(path, "rb") as stream:
            content = stream.read(MAX_MANIFEST_BYTES + 1)
        if len(content) > MAX_MANIFEST_BYTES:
            raise ValueError("far too large")
        manifest = json.loads(content.decode("utf-8"))
        names = [record["file"] for record in manifest["models"]]
        paths = names + [manifest["golden"][end].replace("golden/", "", 1) for end in ("input", "output")]
        if not names or not all(re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z", each) for each in paths):
            raise ValueError("a file that is not in this folder")
    except OSError as error:
        raise FailureError(f"manifest.json cannot be read ({error.strerror}); unpack the archive again") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FailureError("manifest.json is damaged; unpack the archive again") from error
    return manifest, names


def _main(asked, parser):
    manifest, names = _manifest(asked.folder)
    if asked.model is not None and os.path.basename(asked.model) not in names:
        raise FailureError("no model {}; there are {}".format(asked.model, ", ".join(names)))
    chosen = None if asked.model is None else os.path.basename(asked.model)
    records = [record for record in manifest["models"] if chosen in (None, record["file"])]
    if not asked.self_check:
        if not asked.images:
            parser.error("give images, or --self-check")
        results = classify(asked.folder, manifest, records, asked.images, max(1, asked.top))
        for result in results if not asked.json else ():
            likely = ", ".join("{name} {probability:.1%}".format(**each) for each in result["classes"])
            print(_one_line("{}: {}".format(result["image"], likely)))
        if asked.json:
            print(json.dumps(results))
        return 0
    checks = [check(asked.folder, manifest, record) for record in records]
    if asked.json:
        print(json.dumps(checks))
    for each in checks if not asked.json else ():
        word = {True: "passed", False: "FAILED", None: "skipped"}[each["passed"]]
        print("{:8}{:22}{}".format(word, each["file"], each["detail"]))
    if any(each["passed"] is False for each in checks):
        return 1
    if all(each["passed"] is None for each in checks):
        raise FailureError("nothing could be checked; run: pip install ai-edge-litert (or onnxruntime)")
    return 0


if __name__ == "__main__":
    sys.stdout, sys.stderr = Guard(sys.stdout), Guard(sys.stderr)
    sys.exit(main())
