"""Whether a package is whole, and whether its models still do what they did where it was made.

The archive comes from a stranger: it is unpacked in memory, within bounds; nothing in it is imported. Its models run
in processes of their own, by this program's runner and not by the archive's, so that a crash is only a finding.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import math
import re
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgenas.errors import DataError
from edgenas.package import MANIFEST_VERSION
from edgenas.package.build import FOLDER, HERE

LARGEST_BYTES = 512 << 20  # of the archive when unpacked
MOST_MEMBERS = 100
RUN_TIMEOUT_S = 120  # of one model
REQUIRED = ("MODEL_CARD.md", "manifest.schema.json", "run.py")
_AGAIN = "get it again from where it was made"


def verify(path: Path) -> dict[str, Any]:
    """Check the archive at `path`: structure, manifest, every hash, and each model on the golden images.

    Returns {"file", "sha256", "files", "manifest", "models": [{"file", "passed", "detail"}], "runner"}; a model that
    no runtime here can run has passed None. `runner` tells whether run.py is this EdgeNAS's own.
    Raises DataError for whatever is wrong.
    """
    packed = _read(path)
    content = _members(path, packed)
    manifest = _manifest(path, content)
    _check_files(path, content, manifest)
    _check_golden(path, content, manifest)
    models = [_run(path, content, manifest, record) for record in manifest["models"]]
    own = content["run.py"] == (HERE / "runner.py").read_bytes()
    return {
        "file": str(path),
        "sha256": hashlib.sha256(packed).hexdigest(),
        "files": len(content),
        "manifest": manifest,
        "models": models,
        "runner": "is this EdgeNAS's own"
        if own
        else f"is not that of this EdgeNAS (the archive was made by {manifest['versions']['edgenas']!a});"
        " read it before you run it",
    }


def contents(path: Path) -> dict[str, bytes]:
    """Name below the archive's folder -> content of every file; only what `verify` passed is to be believed."""
    return _members(path, _read(path))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); give the path of a package") from error


def _members(path: Path, packed: bytes) -> dict[str, bytes]:
    """Name below FOLDER -> content of every file."""
    damaged = f"{path} is damaged, cut short or no tar.gz archive; {_AGAIN}"
    try:
        # All at once and bounded, since a tar's own headers may claim any size.
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as stream:
            raw = stream.read(LARGEST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(damaged) from error
    if len(raw) > LARGEST_BYTES:
        raise DataError(f"{path} unpacks to more than {LARGEST_BYTES >> 20} MiB, so it is no package; {_AGAIN}")
    content: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(raw), mode="r:") as archive:
            for member in archive:
                name, inside = member.name, member.name.removeprefix(f"{FOLDER}/")
                if inside == name or not re.fullmatch(r"(golden/)?[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)+", inside):
                    raise DataError(
                        f"{path} holds {name[:100]!a}, which leads outside of {FOLDER}/ or has no place there;"
                        f" do not trust it, {_AGAIN}"
                    )
                if not member.isreg():
                    raise DataError(f"{path} holds {name!a}, which is a link or no file; do not trust it, {_AGAIN}")
                stream_ = archive.extractfile(member)
                if inside in content or len(content) >= MOST_MEMBERS or stream_ is None:
                    raise DataError(f"{path} holds {name!a} twice, or far too many files; {_AGAIN}")
                content[inside] = stream_.read()
                if len(content[inside]) != member.size:
                    raise DataError(damaged)
    except (tarfile.TarError, EOFError, ValueError, OverflowError, OSError) as error:
        raise DataError(damaged) from error
    return content


def _manifest(path: Path, content: Mapping[str, bytes]) -> dict[str, Any]:
    if "manifest.json" not in content:
        raise DataError(f"{path} has no {FOLDER}/manifest.json, so it is no package; {_AGAIN}")
    try:
        manifest = json.loads(content["manifest.json"].decode("utf-8"), parse_constant=_not_json)
    except (ValueError, RecursionError) as error:
        raise DataError(f"manifest.json in {path} is not JSON; {_AGAIN}") from error
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if type(version) is int and version != MANIFEST_VERSION:
        raise DataError(
            f"{path} has manifest version {version}, this EdgeNAS reads {MANIFEST_VERSION};"
            " use the EdgeNAS that made it"
        )
    schema = json.loads((HERE / "manifest.schema.json").read_bytes())
    problem = violation(manifest, schema, schema)
    if problem is not None:
        raise DataError(f"manifest.json in {path} breaks its schema: {problem}; {_AGAIN}")
    checked: dict[str, Any] = manifest
    return checked


def _not_json(constant: str) -> float:
    raise ValueError(constant)


_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
}


def violation(value: Any, schema: Mapping[str, Any], root: Mapping[str, Any], where: str = "") -> str | None:
    """The first place where `value` breaks `schema`, in words, or None.

    Knows the part of JSON schema that manifest.schema.json uses.
    """
    if "$ref" in schema:
        return violation(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root, where)
    name = where or "the manifest"
    if "const" in schema and (value != schema["const"] or type(value) is not type(schema["const"])):
        return f"{name} is not {schema['const']!r}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{name} is none of {', '.join(schema['enum'])}"
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and (isinstance(value, bool) or not any(isinstance(value, _TYPES[kind]) for kind in kinds)):
        return f"{name} is no {' or '.join(kinds)}"
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        return f"{name} has another form than {schema['pattern']}"
    if isinstance(value, int | float):
        low, above, high = (schema.get(key) for key in ("minimum", "exclusiveMinimum", "maximum"))
        if (
            not math.isfinite(value)
            or (low is not None and value < low)
            or (above is not None and value <= above)
            or (high is not None and value > high)
        ):
            return f"{name} is out of range"
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            return f"{name} has {len(value)} entries"
        parts = [(f"{where}[{index}]", item, schema.get("items", {})) for index, item in enumerate(value)]
    elif isinstance(value, dict):
        for key in schema.get("required", ()):
            if key not in value:
                return f"{name} lacks '{key}'"
        known, other = schema.get("properties", {}), schema.get("additionalProperties", {})
        for key in value:
            if key not in known and other is False:
                return f"{name} has an unknown entry {key[:50]!a}"
        prefix = f"{where}." if where else ""
        parts = [(f"{prefix}{ascii(key)[1:-1]}", item, known.get(key, other)) for key, item in value.items()]
    else:
        parts = []
    for place, item, inner in parts:
        problem = violation(item, inner, root, place)
        if problem is not None:
            return problem
    return None


def _check_files(path: Path, content: Mapping[str, bytes], manifest: Mapping[str, Any]) -> None:
    listed = manifest["files"]
    models = [record["file"] for record in manifest["models"]]
    for name in sorted({*listed, *REQUIRED, *models, manifest["golden"]["input"], manifest["golden"]["output"]}):
        if name not in content or name not in listed:
            raise DataError(f"{path} lacks {name!a}, or does not vouch for it; {_AGAIN}")
    for name in sorted({*content} - {*listed, "manifest.json"}):
        raise DataError(f"{path} holds {name}, which its manifest does not know; do not trust it, {_AGAIN}")
    hashes = [(name, entry["sha256"]) for name, entry in sorted(listed.items())]
    hashes += [(record["file"], record["sha256"]) for record in manifest["models"]]
    for name, expected in hashes:
        if hashlib.sha256(content[name]).hexdigest() != expected:
            raise DataError(f"{name} in {path} has another hash than its manifest says; do not trust it, {_AGAIN}")


def _check_golden(path: Path, content: Mapping[str, bytes], manifest: Mapping[str, Any]) -> None:
    golden, sizes = manifest["golden"], manifest["preprocessing"]
    count, classes = len(golden["top1"]), len(manifest["classes"])
    if len(golden["labels"]) != count or max([*golden["top1"], *golden["labels"]]) >= classes:
        raise DataError(f"the golden classes in {path} do not fit each other; {_AGAIN}")
    for model in manifest["models"]:
        for end in (model["input"], model["output"]):
            if end["dtype"] == "int8" and not {"scale", "zero_point"} <= set(end):
                raise DataError(f"the manifest in {path} gives {model['file']} no scale or zero point; {_AGAIN}")
    wanted: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {
        golden["input"]: ((count, sizes["height"], sizes["width"], 3), np.dtype(np.uint8)),
        golden["output"]: ((count, classes), np.dtype(np.float32)),
    }
    for name, (shape, dtype) in wanted.items():
        stream = io.BytesIO(content[name])
        try:
            np.lib.format.read_magic(stream)
            found, fortran, kind = np.lib.format.read_array_header_1_0(stream)
        except (ValueError, EOFError) as error:
            raise DataError(f"{name} in {path} is no numpy array; {_AGAIN}") from error
        left = len(content[name]) - stream.tell()
        if (found, fortran, kind) != (shape, False, dtype) or left != math.prod(shape) * dtype.itemsize:
            raise DataError(f"{name} in {path} is not {dtype} of shape {list(shape)}; {_AGAIN}")
        if name == golden["output"]:
            logits = np.frombuffer(content[name], dtype, offset=stream.tell()).reshape(shape)
            if not np.isfinite(logits).all() or logits.argmax(axis=1).tolist() != golden["top1"]:
                raise DataError(f"the golden output in {path} is not of the classes its manifest says; {_AGAIN}")


def _run(
    path: Path, content: Mapping[str, bytes], manifest: Mapping[str, Any], record: Mapping[str, Any]
) -> dict[str, Any]:
    """What run.py would say of one model."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "golden").mkdir()
        for name in ("manifest.json", record["file"], manifest["golden"]["input"], manifest["golden"]["output"]):
            Path(folder, name).write_bytes(content[name])
        runner = str(HERE / "runner.py")
        command = [
            sys.executable,
            "-P",
            runner,
            "--folder",
            folder,
            "--self-check",
            "--json",
            "--model",
            record["file"],
        ]
        try:
            done = subprocess.run(
                command, capture_output=True, encoding="utf-8", errors="replace", timeout=RUN_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise DataError(f"{record['file']} in {path} does not end; do not trust it, {_AGAIN}") from error
    try:
        found: dict[str, Any] = json.loads(done.stdout)[0]
    except (ValueError, IndexError):
        reason = (done.stderr.strip().splitlines() or [f"its runtime ended with {done.returncode}"])[-1][:200]
        raise DataError(f"{record['file']} in {path} does not run ({ascii(reason)[1:-1]}); {_AGAIN}") from None
    if found["passed"] is False:
        raise DataError(f"{record['file']} in {path} does not do what it did: {found['detail']}; {_AGAIN}")
    return found
