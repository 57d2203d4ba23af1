from __future__ import annotations

import json
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgenas.cli import main
from edgenas.data import files
from edgenas.data.ofa import read_networks, read_predictor
from edgenas.errors import DataError
from tests.paper.made import NETWORKS, predictor, write_networks, write_predictor


def test_the_predictor_is_read_as_its_layers(tmp_path: Path) -> None:
    layers = read_predictor(write_predictor(tmp_path / "acc_predictor.pth"))
    x = np.random.default_rng(0).random((3, 128))
    wanted = predictor()(torch.tensor(x, dtype=torch.float32)).detach().numpy()
    for weight, bias in layers[:-1]:
        x = np.maximum(x @ weight.T + bias, 0)
    weight, bias = layers[-1]
    assert x @ weight.T + bias == pytest.approx(wanted, abs=1e-6)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("evil",)


def _changed(name: str, value: Any) -> bytes:
    import io

    state = OrderedDict(predictor().state_dict())
    if value is None:
        del state[name]
    else:
        state[name] = value
    stream = io.BytesIO()
    torch.save(state, stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 100,
        pickle.dumps(Evil()),
        _changed("2.bias", None),
        _changed("2.bias", torch.zeros(9)),
        _changed("4.weight", torch.zeros(2, 8)),
        _changed("0.weight", torch.zeros(8, 127)),
        _changed("0.weight", torch.full((8, 128), torch.nan)),
        _changed("0.weight", "words"),
        _changed("more", torch.zeros(1)),
    ],
    ids=range(10),
)
def test_what_is_no_predictor_is_said(content: bytes, workplace: Path) -> None:
    path = workplace / "acc_predictor.pth"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"is not the accuracy predictor of Once-for-all .*; get the file again, and"):
        read_predictor(path)
    assert not (workplace / "evil").exists()


def test_networks_of_other_spaces_are_left_out(tmp_path: Path) -> None:
    found = read_networks(write_networks(tmp_path / "networks.json"))
    assert [each.net_id for each in found] == [each["net_id"] for each in NETWORKS[:-1]]
    assert (found[0].width, found[4].width) == ("1.2", "1.0")
    assert (found[1].resolution, found[1].top1, found[1].macs_m) == (160, 75.0, 210.0)
    assert found[1].depths == (3,) * 5
    assert found[1].kernels == (3,) * 15


GOOD = {"net_id": "a", "space": "MobileNetV3", "first": 24, "r": 160, "top1": 75.0, "macs": 210.0}
GOOD |= {"d": [2] * 5, "ks": [3] * 10, "e": [3] * 10}


BAD: list[tuple[str, Any]] = [("d", [2, 2]), ("d", [1, 2, 2, 2, 3]), ("ks", [3]), ("ks", [9] * 10), ("e", None)]
BAD += [("e", [5] * 10), ("top1", 175), ("macs", -1), ("first", 7), ("r", "?")]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"3",
        b"[]",
        b"[3]",
        b"[" * 100_000,
        *(json.dumps([{**GOOD, name: value}]).encode() for name, value in BAD),
        json.dumps([{name: value for name, value in GOOD.items() if name != "top1"}]).encode(),
    ],
    ids=range(17),
)
def test_what_is_no_list_of_networks_is_said(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "networks.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"Once-for-all.*import it by: edgenas data import ofa-networks FILE"):
        read_networks(path)


@pytest.mark.parametrize(
    ("name", "write"), [("ofa-predictor", write_predictor), ("ofa-networks", write_networks)], ids=["predictor", "list"]
)
def test_they_can_be_imported(name: str, write: Any, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(workplace / "mine")
    with pytest.raises(SystemExit) as end:
        main(["data", "import", name, "mine"])
    assert not end.value.code, capsys.readouterr().err
    assert files.require(name).read_bytes() == Path("mine").read_bytes()
    with pytest.raises(SystemExit) as end:
        main(["data", "verify", name])
    assert not end.value.code
    (workplace / "mine").write_bytes(b"other")
    with pytest.raises(SystemExit) as end:
        main(["data", "import", name, "mine"])
    assert end.value.code == 7
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_they_are_found_in_the_folder_of_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_predictor(tmp_path / "ofa" / "acc_predictor.pth")
    monkeypatch.setenv("EDGENAS_DATA_DIR", str(tmp_path))
    assert files.require("ofa-predictor") == path
