"""Packages that are not to be trusted: what claims more than it holds, and what a manifest may not say."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenas.errors import DataError
from edgenas.package.build import FOLDER
from edgenas.package.verify import verify, violation
from tests.data.test_archives import END, block, octal, pax, sparse_of_gnu
from tests.test_package import packed, unpacked, vouched

MIB = 1 << 20
GOLDEN = "golden/input.npy"


@pytest.fixture
def content(archive: Path) -> dict[str, bytes]:
    return unpacked(archive)


@pytest.fixture
def refused(tmp_path: Path) -> Callable[[bytes | dict[str, bytes], str], None]:
    """Asserts that an archive is refused in one line, soon, and by less memory than it claims."""

    def refused(inside: bytes | dict[str, bytes], why: str, **bounds: int) -> None:
        path = tmp_path / "a.tar.gz"
        if isinstance(inside, bytes):
            path.write_bytes(gzip.compress(inside, 1))
        else:
            packed(path, inside)
        tracemalloc.start()
        try:
            with pytest.raises(DataError, match=why) as refusal:
                verify(path, **bounds)
            assert tracemalloc.get_traced_memory()[1] < 64 * MIB
        finally:
            tracemalloc.stop()
        assert "\n" not in str(refusal.value)

    return refused


def test_bombs_are_refused_before_they_are_read(refused: Callable[..., None]) -> None:
    name = f"{FOLDER}/a.bin"
    refused(sparse_of_gnu(8 << 30), "a file with holes")
    refused(block(name, octal(7 << 30)) + END, "unpacks to more than the 512 MiB")
    refused(block(name, b"\x80" + b"\xff" * 11) + END, "unpacks to more")
    refused(block("pax", octal(1 << 30), b"x") + END, "is damaged")
    refused(3000 * pax({"comment": "x"}) + END, "is damaged")
    refused(b"".join(block(f"{FOLDER}/a{i}.b", octal(0)) for i in range(200)) + END, "unpacks to more .* 100 files")
    large = bytes(100 * MIB)
    refused(block(name, octal(len(large))) + large + END, "unpacks to more than the 8 MiB", max_bytes=8 * MIB)
    refused(block("x", octal(0)) + END + large, "has no place there")
    refused(block(f"{FOLDER}/x.y", octal(0)) + END + large, "unpacks to more than the 8 MiB", max_bytes=8 * MIB)


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o1644, 0o6777])
def test_set_id_modes_are_refused(mode: int, content: dict[str, bytes], tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        for name, each in content.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(each), mode if name.endswith("run.py") else 0o644
            tar.addfile(member, io.BytesIO(each))
    with pytest.raises(DataError, match=r"'edgenas_model/run\.py', which would run with the rights of another user"):
        verify(tmp_path / "a.tar.gz")


@pytest.mark.parametrize(
    "name",
    [
        *("/etc/passwd", "../x", f"{FOLDER}/../x", f"/{FOLDER}/x.y", f"{FOLDER}//x.y", f"{FOLDER}/golden/../x.y", "x"),
        *(
            f"{FOLDER}/.x",
            f"{FOLDER}/golden/",
            f"{FOLDER}/a/b.c",
            f"{FOLDER}/a\\b.c",
            f"{FOLDER}/a\nb.c",
            f"{FOLDER}/é",
        ),
        *(f"{FOLDER}/{'x' * 65}", f"{FOLDER}/golden/golden/a.b", f"{FOLDER}/a b"),
    ],
)
def test_names_that_lead_elsewhere(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no place there"):
        verify(packed(tmp_path / "a.tar.gz", {name: b"x"}))


def test_a_name_that_is_no_text_or_twice_there(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(block(f"{FOLDER}/".encode() + b"\xff\xfe.py", octal(0)) + END))
    with pytest.raises(DataError, match=r"\\xff\\xfe\.py', which leads outside"):
        verify(path)
    path.write_bytes(gzip.compress(2 * block(f"{FOLDER}/a.py", octal(0)) + END))
    with pytest.raises(DataError, match="is there twice"):
        verify(path)


def in_all_models(**changes: Any) -> Callable[[dict[str, Any]], None]:
    def change(manifest: dict[str, Any]) -> None:
        for model in manifest["models"]:
            model.update(changes)

    return change


def of_scale(scale: float) -> Callable[[dict[str, Any]], None]:
    def change(manifest: dict[str, Any]) -> None:
        for model in manifest["models"]:
            model["input"] |= {"scale": scale, "zero_point": 0}

    return change


LIES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a tolerance that checks nothing": (in_all_models(golden_tolerance=1e308), r"golden_tolerance is out of range"),
    "one that an output of zeros meets": (in_all_models(golden_tolerance=1.5), r"golden_tolerance is out of range"),
    "none": (in_all_models(golden_tolerance=0), r"golden_tolerance is out of range"),
    "below none": (in_all_models(golden_tolerance=-1), r"golden_tolerance is out of range"),
    "a truth": (in_all_models(golden_tolerance=True), r"golden_tolerance is no number"),
    "an integer without end": (in_all_models(golden_tolerance=10**400), r"not JSON \(a whole number of more than 64"),
    "a scale of nothing": (of_scale(1e-300), "scale is out of range"),
    "a scale of all": (of_scale(1e300), "scale is out of range"),
    "a mean beyond the pixels": (lambda m: m["preprocessing"].update(mean=[1e300] * 3), "mean.* is out of range"),
    "a deviation of nothing": (lambda m: m["preprocessing"].update(std=[1e-300] * 3), "std.* is out of range"),
    "a limit beyond": (lambda m: m["constraints"][0].update(limit=1e300), "limit is out of range"),
    "a cost below nothing": (lambda m: m["costs"]["latency"].update(value=-1), "value is out of range"),
    "a size of the sun": (lambda m: m["preprocessing"].update(height=10**9), "height is out of range"),
    "a thousand models": (lambda m: m.update(models=m["models"] * 250), "models has 1000 entries"),
    "a name with a line end": (in_all_models(file="model.onnx\n"), "has another form"),
    "half a character": (lambda m: m["classes"].__setitem__(0, "\ud800"), "is no text in Unicode"),
    "another size": (lambda m: m["files"]["run.py"].update(bytes=1), r"run\.py in .* has another size or hash"),
    "deep": (lambda m: m.update(edgetpu=json.loads("[" * 40 + "]" * 40)), r"not JSON \(nested too deeply\)"),
}


@pytest.mark.parametrize("lie", LIES)
def test_lies_of_a_manifest(lie: str, content: dict[str, bytes], refused: Callable[..., None]) -> None:
    change, why = LIES[lie]
    refused(vouched(content, change), why)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b'{"a": 1e400}', "1e400 is no number"),
        (b'{"a": Infinity}', "Infinity is no number"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"9" * 100_000, "a whole number of more than 64 bits"),
        (b"\xff\xfe{}", "codec can't decode"),
        (b"{} {}", "Extra data"),
        (b"", "Expecting value"),
        (b'"' + b"x" * (17 * MIB) + b'"', r"more than 16,777,216 bytes"),
    ],
)
def test_manifests_that_are_not_json(
    text: bytes, why: str, content: dict[str, bytes], refused: Callable[..., None]
) -> None:
    refused({**content, f"{FOLDER}/manifest.json": text}, why)


def npy(header: bytes, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


@pytest.mark.parametrize(
    "image",
    [
        npy(b"{'descr': '|u1', 'fortran_order': False, 'shape': (100000, 100000, 100000, 3), }\n"),
        npy(b"{1: 2, 'a': 3}\n"),
        npy(b"(" * 5000 + b"\n"),
        npy(b"{'descr': [('a', 'O')], 'fortran_order': False, 'shape': (8, 32, 32, 3), }\n"),
        npy(b"{'descr': '|u1', 'fortran_order': False, 'shape': (8L, 32L, 32L, 3L), }\n"),
        npy(b"'''\n"),
        b"\x93NUMPY\x09\x00",
        b"",
    ],
)
def test_golden_images_that_are_none(image: bytes, content: dict[str, bytes], refused: Callable[..., None]) -> None:
    refused(vouched({**content, f"{FOLDER}/{GOLDEN}": image}), "is no numpy array|is not uint8 of shape")


def test_golden_images_without_measure(content: dict[str, bytes], refused: Callable[..., None]) -> None:
    def large(manifest: dict[str, Any]) -> None:
        manifest["preprocessing"] |= {"height": 4096, "width": 4096}

    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (8, 4096, 4096, 3), }\n"
    refused(vouched({**content, f"{FOLDER}/{GOLDEN}": npy(header)}, large), "larger than golden images are")


def test_a_model_without_measure(content: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tensor of 16 GB, from a file of 200 bytes, does not fit into what a model may take."""
    onnx = pytest.importorskip("onnx")
    helper, numbers = onnx.helper, onnx.TensorProto
    size = helper.make_tensor("size", numbers.INT64, [3], [1, 1, 1 << 32])
    nodes = [
        helper.make_node("Constant", [], ["size"], value=size),
        helper.make_node("ConstantOfShape", ["size"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["zero"], keepdims=0),
        helper.make_node("GlobalAveragePool", ["input"], ["mean"]),
        helper.make_node("Add", ["mean", "zero"], ["output"]),
    ]
    ends = [helper.make_tensor_value_info(name, numbers.FLOAT, None) for name in ("input", "output")]
    graph = helper.make_graph(nodes, "bomb", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    changed = vouched({**content, f"{FOLDER}/model.onnx": model.SerializeToString()})
    with pytest.raises(DataError, match=r"model\.onnx in .*(bad_alloc|allocate|memory|MEMORY)"):
        verify(packed(tmp_path / "a.tar.gz", changed))


def test_a_real_package_is_within_all_bounds(archive: Path, tmp_path: Path) -> None:
    code = f"""
import resource, sys
from pathlib import Path
import edgenas.package.verify as module
module._run = lambda path, content, manifest, record: {{"file": record["file"], "passed": None, "detail": ""}}
sparse = Path({str(tmp_path / "sparse.tar.gz")!r})
before = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (before + (256 << 20),) * 2)
print(module.verify(Path({str(archive)!r}))["files"])
try:
    module.verify(sparse)
except module.DataError as error:
    print(error)
"""
    (tmp_path / "sparse.tar.gz").write_bytes(gzip.compress(sparse_of_gnu(8 << 30)))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    count, refusal = done.stdout.splitlines()
    assert int(count) > 5
    assert "a file with holes" in refusal


def test_ranges_of_numbers_hold_for_all_kinds() -> None:
    schema = {"type": "number", "minimum": 0, "maximum": 1}
    for good in (0, 1, 0.5, np.float64(1.0)):
        assert violation(good, schema, schema) is None
    for bad in (-1e-9, 1.1, 2**63, True, None, "1"):
        assert violation(bad, schema, schema) is not None
