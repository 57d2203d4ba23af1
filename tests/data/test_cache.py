from __future__ import annotations

import dataclasses
import hashlib
import http.server
import os
import pickle
import re
import socket
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenas.benchmarks.nasbench201.accuracies import load_accuracies
from edgenas.benchmarks.nasbench201.hwnasbench import read_hwnasbench
from edgenas.data import cache, files
from edgenas.errors import DataError, UnknownNameError
from tests.data.layouts import write_imagenet16

SIZE = 15_625
CONTENT = bytes(range(256)) * 2000


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """The address of a server on this machine, and the folder it serves."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    folder = tmp_path / "served"
    folder.mkdir()
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}", folder
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def change(monkeypatch: pytest.MonkeyPatch, name: str, **changes: Any) -> None:
    monkeypatch.setitem(files.KNOWN, name, dataclasses.replace(files.KNOWN[name], **changes))


def offer(monkeypatch: pytest.MonkeyPatch, name: str, url: str, content: bytes) -> None:
    """Let `name` come from the server at `url`, official if it has this `content`."""
    entry = files.KNOWN[name]
    kind = entry.digests[entry.download_name][0]
    header = f"blob {len(content)}\0".encode() if kind == "git" else b""
    digest = hashlib.new({"git": "sha1"}.get(kind, kind), header + content).hexdigest()
    address = f"{url}/{entry.download_name}"
    change(monkeypatch, name, url=address, digests={**entry.digests, entry.download_name: (kind, digest)})


def nothing_left_half_written() -> bool:
    folder = files.cache_dir()
    hidden = folder.glob(".*") if folder.is_dir() else []
    return all(each.suffix == ".lock" for each in hidden)


@pytest.mark.parametrize("name", ["resnet20", "cifar10"])
def test_a_fetched_file_is_what_the_source_has(
    name: str, server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, folder = server
    offer(monkeypatch, name, url, CONTENT)
    (folder / files.KNOWN[name].download_name).write_bytes(CONTENT)
    path = cache.fetch(name)
    assert path == files.locate(name)
    assert path.read_bytes() == CONTENT
    assert nothing_left_half_written()
    (folder / files.KNOWN[name].download_name).unlink()
    assert cache.fetch(name) == path  # what is here and good is not downloaded again
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(DataError, match=f"answered 404.*edgenas data import {name} FILE"):
        cache.fetch(name)


def official_pickle(datasets: list[str], value: float = 2.0) -> bytes:
    table = {"raspi4_latency": [value] * SIZE, "edgetpu_latency": np.full(SIZE, -1.0)}
    return pickle.dumps({"nasbench201": dict.fromkeys(datasets, table), "fbnet": {}})


def test_the_official_pickle_is_checked_by_its_git_blob_id_and_converted(
    server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, folder = server
    content = official_pickle(["cifar10", "cifar100", "ImageNet16-120"])
    offer(monkeypatch, "hw-nas-bench", url, content)
    (folder / "HW-NAS-Bench-v1_0.pickle").write_bytes(content)
    path = cache.fetch("hw-nas-bench")
    assert path.name == "hw-nas-bench.npz"
    assert sorted(read_hwnasbench(path)) == ["cifar10", "cifar100", "imagenet16-120"]
    assert read_hwnasbench(path)["imagenet16-120"]["raspi4_latency"][7] == 2.0
    (folder / "HW-NAS-Bench-v1_0.pickle").unlink()
    assert cache.fetch("hw-nas-bench") == path
    (check,) = cache.verify("hw-nas-bench").checks
    assert check.ok
    assert "made from HW-NAS-Bench-v1_0.pickle" in check.detail


@pytest.mark.parametrize("name", ["resnet20", "hw-nas-bench", "cifar100"])
def test_another_content_than_the_official_is_refused(
    name: str, server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, folder = server
    offer(monkeypatch, name, url, CONTENT)
    (folder / files.KNOWN[name].download_name).write_bytes(CONTENT + b"!")
    with pytest.raises(DataError, match="not the official"):
        cache.fetch(name)
    assert files.locate(name) is None
    assert nothing_left_half_written()


@pytest.mark.parametrize("name", [name for name, entry in files.KNOWN.items() if entry.url])
def test_without_a_network_the_way_out_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        change(monkeypatch, name, url=f"http://127.0.0.1:{closed.getsockname()[1]}/file")
        with pytest.raises(DataError, match=f"could not be reached.*edgenas data import {name} FILE") as error:
            cache.fetch(name)
    assert "\n" not in str(error.value)
    assert nothing_left_half_written()


def test_what_has_no_address_cannot_be_fetched() -> None:
    with pytest.raises(DataError, match="edgenas data import nasbench201 FILE"):
        cache.fetch("nasbench201")
    with pytest.raises(UnknownNameError):
        cache.fetch("resnet")


def write_accuracies(path: Path, dataset: str, value: float) -> Path:
    path.write_text(f"arch_idx,{dataset}_test_acc\n" + "".join(f"{i},{value}\n" for i in range(SIZE)))
    return path


def test_an_imported_benchmark_joins_the_data_sets_imported_before(tmp_path: Path) -> None:
    cache.import_("nasbench201", write_accuracies(tmp_path / "a.csv", "cifar10", 50))
    cache.import_("nasbench201", write_accuracies(tmp_path / "b.csv", "cifar100", 60))
    cache.import_("nasbench201", write_accuracies(tmp_path / "c.csv", "cifar10", 70))
    for dataset, value in {"cifar10": 70, "cifar100": 60}.items():
        accuracies = load_accuracies(dataset)
        assert accuracies is not None
        assert set(accuracies.tolist()) == {value}
    (check,) = cache.verify("nasbench201").checks
    assert check.detail.endswith("made from b.csv, c.csv")


def test_a_damaged_cache_is_found_and_replaced(tmp_path: Path) -> None:
    path = cache.import_("nasbench201", write_accuracies(tmp_path / "a.csv", "cifar10", 50))
    path.write_bytes(path.read_bytes()[:-100])
    found = cache.verify("nasbench201")
    assert [check.ok for check in found.checks] == [False]
    assert re.search(r"edgenas data import nasbench201 FILE .* replaces it", str(found.problem))
    cache.import_("nasbench201", tmp_path / "a.csv")
    found = cache.verify("nasbench201")
    assert ([check.ok for check in found.checks], found.problem) == ([True], None)


@pytest.mark.parametrize("name", files.KNOWN)
def test_wrong_content_is_refused_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    path = tmp_path / "HW-NAS-Bench-v1_0.pickle"
    path.write_bytes(pickle.dumps({"another": "file"}))
    with pytest.raises(DataError) as error:
        cache.import_(name, path)
    assert "\n" not in str(error.value)
    assert not list(files.cache_dir().iterdir())
    with pytest.raises(DataError, match="there is no file"):
        cache.import_(name, tmp_path / "gone")


def test_a_failed_import_keeps_what_was_there(tmp_path: Path) -> None:
    path = cache.import_("nasbench201", write_accuracies(tmp_path / "a.csv", "cifar10", 50))
    before = path.read_bytes()
    with pytest.raises(DataError):
        cache.import_("nasbench201", write_accuracies(tmp_path / "b.csv", "cifar10", 500))
    assert path.read_bytes() == before


def test_an_interruption_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = cache.import_("nasbench201", write_accuracies(tmp_path / "a.csv", "cifar10", 50))
    before = path.read_bytes()

    def interrupt(stream: Any, **_: Any) -> None:
        stream.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupt)
    with pytest.raises(KeyboardInterrupt):
        cache.import_("nasbench201", write_accuracies(tmp_path / "b.csv", "cifar10", 60))
    assert path.read_bytes() == before
    assert nothing_left_half_written()


def test_a_malicious_pickle_is_not_imported(tmp_path: Path) -> None:
    path = tmp_path / "HW-NAS-Bench-v1_0.pickle"
    path.write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR.")
    with pytest.raises(DataError, match=r"os\.system"):
        cache.import_("hw-nas-bench", path)
    assert not (tmp_path / "ran").exists()


def test_the_folder_of_imagenet16_is_imported_whole(tmp_path: Path) -> None:
    folder = write_imagenet16(tmp_path / "mine")
    kept = cache.import_("imagenet16-120", folder)
    assert sorted(each.name for each in kept.iterdir()) == sorted(each.name for each in folder.iterdir())
    assert cache.import_("imagenet16-120", folder) == kept  # again, in the place of the first
    assert cache.verify("imagenet16-120").checks[0].detail == "readable, holds 1,200 train images, 120 test images"
    with pytest.raises(DataError, match="give the folder that holds"):
        cache.import_("imagenet16-120", folder / "val_data")
    (folder / "val_data").write_bytes(b"no")
    with pytest.raises(DataError, match="damaged"):
        cache.import_("imagenet16-120", folder)


def test_a_cache_that_cannot_be_written_is_named_with_the_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EDGENAS_CACHE_DIR", str(tmp_path / "file" / "cache"))
    source = write_accuracies(tmp_path / "a.csv", "cifar10", 50)
    with pytest.raises(DataError, match=r"cannot be written .*point EDGENAS_CACHE_DIR"):
        cache.import_("nasbench201", source)
    with pytest.raises(DataError, match=r"cannot be written .*point EDGENAS_CACHE_DIR"):
        cache.fetch("resnet20")


def test_verify_tells_good_from_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGENAS_DATA_DIR", str(tmp_path))
    (tmp_path / "resnet20-12fca82f.th").write_bytes(b"no")
    write_accuracies(tmp_path / "nasbench201.csv", "cifar10", 50).rename(tmp_path / "nasbench201.npz")
    checks = {check.name: check for check in cache.verify().checks}
    assert {name: check.ok for name, check in checks.items()} == {"nasbench201": False, "resnet20": False}
    assert "12fca82f" in checks["resnet20"].detail
    with pytest.raises(DataError, match="not on this machine"):
        cache.verify("resnet56")


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["hw-nas-bench", "nasbench201", "cifar10-sample", "resnet20", "resnet56"])
def test_real_files_are_verified_and_imported(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not os.environ.get("EDGENAS_DATA_DIR") or not (found := files.locate_all(name)):
        pytest.skip(
            f"needs {files.KNOWN[name].file_names[-1]} in EDGENAS_DATA_DIR; get it by: {files.KNOWN[name].command}"
        )
    assert [check.detail for check in cache.verify(name).checks][-1] in ("sha256 agrees", "git blob id agrees")
    kept = cache.import_(name, found[-1])
    monkeypatch.delenv("EDGENAS_DATA_DIR")
    assert files.locate_all(name) == [kept]
    assert [check.ok for check in cache.verify(name).checks] == [True]
