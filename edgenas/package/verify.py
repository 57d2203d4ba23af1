"""Whether a package is whole, and whether its models still do what they did where it was made.

The archive comes from a stranger: it is unpacked in memory, within bounds; nothing in it is imported. Its models run
in processes of their own, by this program's runner and not by the archive's, so that a crash is only a finding.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import re
import stat
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgenas.data import files
from edgenas.data.archives import members
from edgenas.errors import DataError
from edgenas.lower.child import CrashError, in_child
from edgenas.lower.runtimes import words
from edgenas.package import MANIFEST_VERSION
from edgenas.package.build import FOLDER, HERE, run_py
from edgenas.text import is_name, parse_json, printable

MAX_BYTES = 512 << 20  # of the archive when unpacked
MAX_MEMBERS = 100
MAX_MANIFEST_BYTES = 16 << 20
MAX_GOLDEN_BYTES = 64 << 20  # of the golden images: a runtime holds them several times over
REQUIRED = ("MODEL_CARD.md", "manifest.schema.json", "run.py")
_AGAIN = "get it again from where it was made"
_SET_ID = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX


def verify(path: Path, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Check the archive at `path`: structure, manifest, every hash, and each model on the golden images.

    Returns {"file", "sha256", "files", "manifest", "models": [{"file", "passed", "detail"}], "runner"}; a model that
    no runtime here can run has passed None. `runner` says whether run.py is this EdgeNAS's own.
    Raises DataError for whatever is wrong, more than `max_bytes` when unpacked included.
    """
    return verified(path, max_bytes)[0]


def verified(path: Path, max_bytes: int = MAX_BYTES) -> tuple[dict[str, Any], dict[str, bytes]]:
    """As `verify`, and the content of every file, by its name below the archive's folder, that was checked."""
    sha256 = files.digest(path, "sha256") if path.is_file() else ""
    content = _content(path, max_bytes)
    manifest = _manifest(path, content)
    _check_files(path, content, manifest)
    _check_golden(path, content, manifest)
    models = [_run(path, content, manifest, record) for record in manifest["models"]]
    own = content["run.py"] == run_py()
    made_by = printable(manifest["versions"]["edgenas"], 64)
    found = {
        "file": str(path),
        "sha256": sha256,
        "files": len(content),
        "manifest": manifest,
        "models": models,
        "runner": "is this EdgeNAS's own"
        if own
        else f"is not that of this EdgeNAS (the archive was made by '{made_by}'); read it before you run it",
    }
    return found, content


def _content(path: Path, max_bytes: int) -> dict[str, bytes]:
    """Name below FOLDER -> content of every file."""
    content: dict[str, bytes] = {}
    with contextlib.closing(members(path, max_bytes, _AGAIN, MAX_MEMBERS)) as inside:
        for member in inside:
            name = member.name.removeprefix(f"{FOLDER}/")
            if name == member.name or not member.is_file or not _is_inside(name):
                problem = f"leads outside of {FOLDER}/ or has no place there"
            elif member.mode & _SET_ID:
                problem = "would run with the rights of another user"
            elif name in content:
                problem = "is there twice"
            else:
                content[name] = member.read()
                continue
            raise DataError(f"{path} holds '{printable(member.name, 100)}', which {problem}; do not trust it, {_AGAIN}")
    return content


def _is_inside(name: str) -> bool:
    """Whether `name` is that of a file in a package, at its top or in its folder golden."""
    return is_name(name.removeprefix("golden/"))


def _manifest(path: Path, content: Mapping[str, bytes]) -> dict[str, Any]:
    if "manifest.json" not in content:
        raise DataError(f"{path} has no {FOLDER}/manifest.json, so it is no package; {_AGAIN}")
    try:
        manifest = parse_json(content["manifest.json"], MAX_MANIFEST_BYTES)
    except ValueError as error:
        raise DataError(f"manifest.json in {path} is not JSON ({printable(error, 100)}); {_AGAIN}") from error
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
    if isinstance(value, str):
        if not re.search(schema.get("pattern", "").replace("$", r"\Z"), value):
            return f"{name} has another form than {schema['pattern']}"
        if any("\ud800" <= each <= "\udfff" for each in value):
            return f"{name} is no text in Unicode"
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
                return f"{name} has an unknown entry '{printable(key, 50)}'"
        prefix = f"{where}." if where else ""
        parts = [(f"{prefix}{printable(key, 50)}", item, known.get(key, other)) for key, item in value.items()]
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
            raise DataError(f"{path} lacks '{printable(name, 64)}', or does not vouch for it; {_AGAIN}")
    for name in sorted({*content} - {*listed, "manifest.json"}):
        raise DataError(f"{path} holds {name}, which its manifest does not know; do not trust it, {_AGAIN}")
    for name, entry in [*sorted(listed.items()), *((record["file"], record) for record in manifest["models"])]:
        if len(content[name]) != entry["bytes"] or hashlib.sha256(content[name]).hexdigest() != entry["sha256"]:
            raise DataError(
                f"{name} in {path} has another size or hash than its manifest says; do not trust it, {_AGAIN}"
            )


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
            with warnings.catch_warnings(action="error"):
                np.lib.format.read_magic(stream)
                found, fortran, kind = np.lib.format.read_array_header_1_0(stream)
        except Exception as error:  # a header is a piece of Python, and numpy's reader fails over it in any way
            raise DataError(f"{name} in {path} is no numpy array; {_AGAIN}") from error
        left = len(content[name]) - stream.tell()
        if math.prod(shape) > MAX_GOLDEN_BYTES:
            raise DataError(f"{name} in {path} is larger than golden images are; do not trust it, {_AGAIN}")
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
        try:
            found: dict[str, Any] = in_child("edgenas.package.verify:_check", Path(folder), file=record["file"])
        except (CrashError, DataError) as error:
            reason = error.how if isinstance(error, CrashError) else str(error)
            raise DataError(f"{record['file']} in {path} does not run ({reason}); {_AGAIN}") from error
    if found["passed"] is False:
        raise DataError(f"{record['file']} in {path} does not do what it did: {printable(found['detail'])}; {_AGAIN}")
    return found


def _check(folder: Path, file: str) -> dict[str, Any]:
    """What the runner finds of one model, in a process of its own."""
    from edgenas.package import runner

    manifest = parse_json((folder / "manifest.json").read_bytes())
    (record,) = [each for each in manifest["models"] if each["file"] == file]
    try:
        found: dict[str, Any] = runner.check(str(folder), manifest, record)  # type: ignore[no-untyped-call]
    except Exception as error:  # the runtimes raise classes of their own, without a common base
        raise DataError(words(error)) from error
    return found
