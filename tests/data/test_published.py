"""Trained networks that are public files without a known hash: they are known by reading them."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from edgenas import plugins
from edgenas.architecture import Inheriting, Published
from edgenas.data import cache, files
from edgenas.errors import DataError
from edgenas.spaces.mobilenet import OFAMobileNetV3W10, OFAMobileNetV3W12
from tests.data.test_cache import change, nothing_left_half_written
from tests.spaces.checkpoints import Evil, official

W10, W12 = OFAMobileNetV3W10(), OFAMobileNetV3W12()


@pytest.fixture(scope="module")
def checkpoint() -> dict[str, Tensor]:
    return official(W10)


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize("nested", ["conv", "mobile_inverted_conv"])
def test_an_imported_checkpoint_is_the_supernet_of_its_space(nested: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"not on this machine; run: edgenas data fetch ofa-mbv3-w1\.0"):
        W10.supernet()
    stored = official(W10, nested)
    kept = cache.import_(W10.name, saved(tmp_path / "mine.pth", {"state_dict": stored}))
    assert kept.name == "ofa_mbv3_d234_e346_k357_w1.0"
    assert files.locate(W10.name) == kept
    (check,) = cache.verify(W10.name).checks
    assert (check.ok, check.detail) == (True, "readable, holds the weights of ofa-mbv3-w1.0")
    supernet = W10.supernet()
    assert supernet is OFAMobileNetV3W10().supernet(), "it is read once"
    name = f"blocks.1.{nested}.point_linear.conv.conv.weight"
    part = supernet.subnet(W10.largest()).state_dict()["stages.1.0.project.conv.weight"]
    assert torch.equal(part, stored[name])
    other = {**stored, name: stored[name] + 1}
    cache.import_(W10.name, saved(tmp_path / "mine.pth", {"state_dict": other}))
    assert W10.supernet().fingerprint != supernet.fingerprint, "a file that changed is read again"


def rename(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.replace("depth_conv", "other"): each for name, each in stored.items()}


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda stored: {"state_dict": official(W12)}, "it is of another width"),
        (lambda stored: {"state_dict": dict(list(stored.items())[:-1])}, "it has no 'classifier.linear.bias'"),
        (lambda stored: {"state_dict": rename(stored)}, "it has no 'blocks.0.conv.depth_conv.conv.weight'"),
        (lambda stored: {"state_dict": {}}, "it has no 'first_conv.conv.weight'"),
        (lambda stored: {"state_dict": [1, 2]}, "it is no table of weights"),
        (lambda stored: {"state_dict": {"first_conv.conv.weight": 1}}, "it is no table of weights"),
        (lambda stored: torch.zeros(3), "it is no table of weights"),
        (lambda stored: {"state_dict": {**stored, "more": Evil()}}, "no file of torch's"),
    ],
)
def test_other_content_is_refused_and_nothing_is_kept(
    damage: Callable[[dict[str, Tensor]], Any],
    says: str,
    checkpoint: dict[str, Tensor],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = saved(tmp_path / "mine.pth", damage(dict(checkpoint)))
    with pytest.raises(DataError, match=r"is no checkpoint of ofa-mbv3-w1\.0") as error:
        cache.import_(W10.name, path)
    assert says in str(error.value)
    assert str(error.value).endswith("edgenas data fetch ofa-mbv3-w1.0")
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 7
    assert not list(files.cache_dir().iterdir())
    assert "it ran" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("cut", [lambda c: c[:-1], lambda c: c[: len(c) // 2], lambda c: b"", lambda c: c[5:]])
def test_one_cut_short_is_refused(cut: Callable[[bytes], bytes], checkpoint: dict[str, Tensor], tmp_path: Path) -> None:
    path = saved(tmp_path / "mine.pth", checkpoint)
    path.write_bytes(cut(path.read_bytes()))
    with pytest.raises(DataError, match="is no checkpoint of"):
        cache.import_(W10.name, path)
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(DataError, match="is no checkpoint of"):
        cache.import_(W10.name, path)
    assert not list(files.cache_dir().iterdir())


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What the recorded address of the checkpoint gives."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    file = files.KNOWN[W10.name].file_names[0]
    change(monkeypatch, W10.name, url=f"http://127.0.0.1:{server.server_port}/{file}")
    yield folder / file
    server.shutdown()
    thread.join()
    server.server_close()


def test_it_is_fetched_from_the_recorded_address(served: Path, checkpoint: dict[str, Tensor]) -> None:
    saved(served, {"state_dict": official(W12)})
    with pytest.raises(DataError, match=r"none of Once-for-all MobileNetV3, width 1\.0; try again later, or get"):
        cache.fetch(W10.name)
    assert files.locate(W10.name) is None
    assert nothing_left_half_written()
    saved(served, {"state_dict": checkpoint})
    path = cache.fetch(W10.name)
    assert path.read_bytes() == served.read_bytes()
    served.unlink()
    assert cache.fetch(W10.name) == path, "a good one is not downloaded again"
    path.write_bytes(path.read_bytes()[:-100])
    assert not cache.verify(W10.name).checks[0].ok
    with pytest.raises(DataError, match="answered 404"):
        cache.fetch(W10.name)


@pytest.mark.parametrize("name", ["ofa-mbv3-w1.0", "ofa-mbv3-w1.2"])
def test_the_addresses_are_the_publishers(name: str) -> None:
    entry = files.known(name)
    width = name.rpartition("-")[2]
    assert entry.url == (
        f"https://raw.githubusercontent.com/han-cai/files/master/ofa/ofa_nets/ofa_mbv3_d234_e346_k357_{width}"
    )
    space = plugins.load("spaces", name)()
    assert isinstance(space, Inheriting)
    assert isinstance(space, Published)


def test_without_torch_the_command_that_brings_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(*_: Any) -> Any:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(OFAMobileNetV3W10, "read", lacking)
    (tmp_path / "mine.pth").write_bytes(b"any")
    with pytest.raises(Exception, match=r"needs torch, which is not installed; run: pip install 'edgenas\[live\]'"):
        cache.import_(W10.name, tmp_path / "mine.pth")
