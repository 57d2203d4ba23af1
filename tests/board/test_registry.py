"""The user's boards, and what was measured on them."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from edgenas import device as devices
from edgenas.board import registry
from edgenas.board.local import Local
from edgenas.board.registry import Board
from edgenas.board.store import Store, key_of
from edgenas.errors import BoardError, DataError, UnknownNameError, UsageError


def path() -> Path:
    return registry.config_dir() / "boards.json"


def test_added_listed_removed() -> None:
    assert registry.boards() == {}
    one = Board("one", "raspi4", "ssh", {"host": "pi", "port": 2222}, "python3.9", 4)
    registry.add(one)
    registry.add(registry.local("here", "host"))
    assert list(registry.boards()) == ["here", "one"]
    assert registry.board("one") == one
    registry.remove("one")
    assert list(registry.boards()) == ["here"]
    with pytest.raises(UnknownNameError, match="no board 'one'"):
        registry.remove("one")


def test_a_board_connects(tmp_path: Path) -> None:
    transport = Board("here", "host", "local", {"home": str(tmp_path)}).connect()
    assert isinstance(transport, Local)
    transport.close()


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (Board("", "host", "local"), "cannot name a board"),
        (Board("../x", "host", "local"), "cannot name a board"),
        (Board("a b", "host", "local"), "cannot name a board"),
        (Board("x" * 65, "host", "local"), "cannot name a board"),
        (Board("a", "raspi5", "local"), "did you mean raspi4"),
        (Board("a", "eyeriss", "local"), "simulated table only"),
        (Board("a", "fpga", "local"), "simulated table only"),
        (Board("a", "host", "smoke"), "no transport 'smoke'"),
        (Board("a", "host", "local", threads=0), "give 1 or more"),
        (Board("here", "host", "local"), "edgenas board remove here"),
    ],
)
def test_what_is_no_board(entry: Board, says: str) -> None:
    registry.add(registry.local("here", "host"))
    with pytest.raises(UsageError, match=says):
        registry.add(entry)
    assert list(registry.boards()) == ["here"]


def test_a_profile_of_ones_own(workplace: Path) -> None:
    shutil.copy(devices.profiles() / "host.toml", workplace / "mine.toml")
    registry.add(Board("mine", "./mine.toml", "local"))
    kept = registry.board("mine")
    assert Path(kept.device).is_absolute(), "it is found from any folder"
    assert registry.pool("mine") == [kept], "a device has the board that has its name"


def test_pools() -> None:
    for name in ("one", "two"):
        registry.add(Board(name, "raspi4", "local"))
    registry.add(registry.local("here", "host"))
    assert [each.name for each in registry.pool("raspi4")] == ["one", "two"]
    assert [each.name for each in registry.pool("raspi4", ["two"])] == ["two"]
    with pytest.raises(UsageError, match="board here is a host, not a raspi4"):
        registry.pool("raspi4", ["here"])
    for device, how in (("jetson_tx2", "--ssh"), ("pixel3", "--adb")):
        with pytest.raises(BoardError, match=f"there is no board of {device} yet; add one: .* {how}"):
            registry.pool(device)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"boards": []}',
        '{"boards": {"a": 1}}',
        '{"boards": {"a": {"name": "b", "device": "host", "transport": "local", "options": {}}}}',
        '{"boards": {"a": {"name": "a", "device": "host", "transport": "local", "options": {}, "extra": 1}}}',
        '{"boards": {"a": {"name": "a", "device": "host", "transport": "local", "options": []}}}',
        '{"boards": {"a": {"name": "a", "options": {}}}}',
    ],
)
def test_a_damaged_file_is_named(content: str) -> None:
    path().parent.mkdir(parents=True, exist_ok=True)
    path().write_text(content)
    with pytest.raises(DataError, match=r"boards\.json is damaged"):
        registry.boards()
    with pytest.raises(DataError):
        registry.add(registry.local("here", "host"))
    assert path().read_text() == content, "it is not overwritten"


def test_a_folder_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EDGENAS_CONFIG_DIR", str(tmp_path / "file" / "config"))
    with pytest.raises(BoardError, match="EDGENAS_CONFIG_DIR"):
        registry.add(registry.local("here", "host"))


# The store of measurements.


def measured(*samples_ns: int) -> dict[str, Any]:
    attempt = {"samples_ns": [list(samples_ns)], "inner": 1, "energy_mj": None, "problems": [], "drift": 0.0}
    attempt |= {"processes": [{"repeats": 1}], "alpha": 0.05, "unseen": [0.0, 0.0]}
    return {"board": "here", "measured_at": "now", "checked": True, "note": "", "attempts": [attempt]}


def samples(found: dict[str, Any]) -> list[int]:
    (repeat,) = found["attempts"][0]["samples_ns"]
    return list(repeat)


FINGERPRINT = {"model_sha256": "a" * 64, "threads": 1, "governor": ["performance"], "clocks": None}


def test_kept_and_found(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.find(FINGERPRINT) is None
    store.keep(FINGERPRINT, measured(1))
    found = store.find(dict(reversed(FINGERPRINT.items())))  # the order of the keys is free
    assert found is not None
    assert found == {**measured(1), "fingerprint": FINGERPRINT}
    for name in FINGERPRINT:
        assert store.find({**FINGERPRINT, name: "other"}) is None
    assert store.find({**FINGERPRINT, "more": 1}) is None


def test_by_default_in_the_users_folder() -> None:
    assert Store().folder == registry.data_dir() / "measurements"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"fingerprint": {}}', "null", "\x00"])
def test_a_damaged_file_counts_as_none(tmp_path: Path, content: str) -> None:
    store = Store(tmp_path)
    path = store.keep(FINGERPRINT, measured(1))
    assert path is not None
    path.write_text(content)
    assert store.find(FINGERPRINT) is None
    store.keep(FINGERPRINT, measured(2))
    assert store.find(FINGERPRINT) is not None


def test_a_file_under_a_wrong_key_is_not_believed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = store.keep(FINGERPRINT, measured(1))
    assert path is not None
    other = {**FINGERPRINT, "threads": 2}
    target = tmp_path / key_of(other)[:2] / f"{key_of(other)}.json"
    target.parent.mkdir(exist_ok=True)
    shutil.copy(path, target)
    assert store.find(other) is None


def test_many_writers_at_once(tmp_path: Path) -> None:
    def write(number: int) -> None:
        for _ in range(20):
            Store(tmp_path).keep(FINGERPRINT, measured(*[number] * 1000))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        found = Store(tmp_path).find(FINGERPRINT)
        assert found is None or len(set(samples(found))) == 1
    for thread in threads:
        thread.join()
    (path,) = (each for each in tmp_path.rglob("*") if each.is_file())
    assert len(samples(json.loads(path.read_text()))) == 1000


def test_a_full_disk_is_reported_once_and_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    store = Store(tmp_path / "file" / "store")
    for number in (1, 2):
        assert store.keep(FINGERPRINT, measured(number)) is None
    (said,) = caplog.messages
    assert "is not kept" in said
    assert "EDGENAS_STATE_DIR" in said
