from __future__ import annotations

import lzma
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edgenas import cost, device
from edgenas.benchmarks.nasbench201.accuracies import load_accuracies
from edgenas.data import cache, files
from edgenas.data.images import load_images
from edgenas.errors import DataError, UnknownNameError
from edgenas.spaces.nasbench201 import NASBench201
from tests.data.layouts import official


def test_the_data_folder_goes_before_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = files.cache_dir() / "resnet20-12fca82f.th"
    cached.parent.mkdir(exist_ok=True)
    cached.touch()
    assert files.locate("resnet20") == cached
    monkeypatch.setenv("EDGENAS_DATA_DIR", str(tmp_path))
    assert files.locate("resnet20") == cached
    mine = tmp_path / cached.name
    mine.touch()
    assert files.locate_all("resnet20") == [mine, cached]
    official(monkeypatch, mine)
    assert files.require("resnet20") == mine
    mine.write_bytes(b"altered")  # its size and time change, so it is looked at again
    with pytest.raises(DataError, match=r"not the official file .*\(sha256 \w{64}, not \w{64}\); remove it"):
        files.require("resnet20")


def test_a_data_folder_that_is_none_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGENAS_DATA_DIR", str(tmp_path / "gone"))
    with pytest.raises(DataError, match=r"EDGENAS_DATA_DIR is '.*gone', which is no folder"):
        files.locate("cifar10")
    monkeypatch.setenv("EDGENAS_DATA_DIR", "")
    assert files.locate("cifar10") is None


@pytest.mark.parametrize("name", files.KNOWN)
def test_what_is_missing_comes_with_the_command_that_gets_it(name: str) -> None:
    with pytest.raises(DataError, match=f"edgenas data import {name} FILE") as error:
        files.require(name)
    assert (f"edgenas data fetch {name}" in str(error.value)) == (files.KNOWN[name].url is not None)


def test_an_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(UnknownNameError, match="did you mean hw-nas-bench"):
        files.locate("hwnasbench")


@pytest.mark.parametrize("entry", files.KNOWN.values(), ids=lambda entry: entry.name)
def test_every_download_has_a_digest(entry: files.KnownFile) -> None:
    lengths = {"git": 40, "md5": 32, "sha256": 64}
    assert all(len(digest) == lengths[kind] for kind, digest in entry.digests.values())
    if entry.url:
        assert entry.url.endswith(f"/{entry.download_name}")
        assert entry.download_name in entry.file_names


def test_the_git_digest_is_that_of_git(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"hello\n")
    assert files.digest(path, "git") == "ce013625030ba8dba906f756967f9e9ca394464a"  # git hash-object


@pytest.mark.real_data
@pytest.mark.parametrize(
    "name", ["hwnasbench_nb201_cifar10.csv.xz", "nb201_cifar10.csv.xz", "resnet20-12fca82f.th", "resnet56-4bfd9763.th"]
)
def test_real_files_have_their_digests(name: str) -> None:
    path = Path(os.environ.get("EDGENAS_DATA_DIR", "")) / name
    if not path.is_file():
        pytest.skip(f"needs {name}; `edgenas data list` says how to get it")
    entry = next(entry for entry in files.KNOWN.values() if name in entry.file_names)
    kind, expected = entry.digests[name]
    assert files.digest(path, kind) == expected


def csv_of(column: str) -> bytes:
    return lzma.compress(f"arch_idx,{column}\n".encode() + b"".join(b"%d,50\n" % i for i in range(15_625)))


# A file under an official name, and what reads it.
USES: dict[str, tuple[Callable[[], bytes], Callable[[], object]]] = {
    "nb201_cifar10.csv.xz": (lambda: csv_of("cifar10_test_acc"), lambda: load_accuracies("cifar10")),
    "hwnasbench_nb201_cifar10.csv.xz": (
        lambda: csv_of("raspi4_latency"),
        lambda: cost.create("auto", NASBench201(), "cifar10", device.load("raspi4")),
    ),
    "cifar-100-python.tar.gz": (lambda: b"", lambda: load_images("cifar100")),
    "resnet20-12fca82f.th": (lambda: b"", lambda: files.require("resnet20")),
    "resnet56-4bfd9763.th": (lambda: b"", lambda: files.require("resnet56")),
}


@pytest.mark.parametrize("name", USES)
def test_an_altered_public_file_is_not_used(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, use = USES[name]
    monkeypatch.setenv("EDGENAS_DATA_DIR", str(tmp_path))
    (tmp_path / name).write_bytes(content())
    with pytest.raises(
        DataError, match=r"is not the official file of that name .*put the right one in its place"
    ) as no:
        use()
    assert str(tmp_path / name) in str(no.value)
    assert [check.ok for check in cache.verify().checks if check.path.name == name] == [False]
    if content():
        official(monkeypatch, tmp_path / name)
        assert use() is not None


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["nb201_cifar10.csv.xz", "hwnasbench_nb201_cifar10.csv.xz", "resnet20-12fca82f.th"])
def test_one_changed_byte_of_a_real_file_is_noticed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(os.environ.get("EDGENAS_DATA_DIR", "")) / name
    if not path.is_file():
        pytest.skip(f"needs {name}; `edgenas data list` says how to get it")
    content = bytearray(path.read_bytes())
    monkeypatch.setenv("EDGENAS_DATA_DIR", str(tmp_path))
    (tmp_path / name).write_bytes(content)
    USES[name][1]()
    content[len(content) // 2] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match="is not the official file of that name"):
        USES[name][1]()
