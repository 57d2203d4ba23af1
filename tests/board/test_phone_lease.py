"""Who has a phone: one program at a time, for as long as it said, and not after a reboot or a cut cable."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

import pytest

from edgenas.board.phone import PhoneSession
from edgenas.board.session import RefusedError
from edgenas.errors import BoardError
from tests.board.fake_adbd import FakePhone
from tests.board.phones import Connect, script, timed
from tests.board.sshd import PATIENCE_S


def test_a_phone_is_leased_to_one_program(connect_phone: Connect) -> None:
    mine, other = connect_phone(holder="mine"), connect_phone(holder="it's\nanother")
    other.lease(60.0)
    with pytest.raises(RefusedError, match=r"leased to it's another for another \d+ s") as caught:
        mine.lease(60.0)
    assert caught.value.kind == "busy"
    assert caught.value.detail["holder"] == "it's another"
    with pytest.raises(RefusedError) as caught:
        timed(mine)
    assert caught.value.kind == "lease"
    other.lease(90.0)  # longer
    other.close()
    mine.lease(60.0)
    assert timed(mine)["samples_ns"]


def test_only_one_of_many_gets_the_lease(connect_phone: Connect, phone: FakePhone) -> None:
    sessions = [connect_phone(holder=str(number)) for number in range(6)]
    ready, taken = threading.Barrier(len(sessions)), []

    def take(session: PhoneSession) -> None:
        ready.wait(PATIENCE_S)
        with contextlib.suppress(RefusedError):
            session.lease(60.0)
            taken.append(session)

    for _ in range(3):
        taken.clear()
        threads = [threading.Thread(target=take, args=(session,)) for session in sessions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert len(taken) == 1
        taken[0].close()
        sessions.remove(taken[0])
        ready = threading.Barrier(len(sessions))
    assert not list(phone.path("/data/local/tmp/edgenas").glob("claim.*"))
    assert len(list(phone.path("/data/local/tmp/edgenas").glob("lease.*"))) == 1


def test_a_lease_ends_with_its_time_and_a_late_result_is_rejected(
    connect_phone: Connect, android: dict[str, Path]
) -> None:
    options = {name: str(path) for name, path in android.items()}
    late, next_one = connect_phone(**options), connect_phone(**options)
    late.lease(60.0)
    with pytest.raises(RefusedError, match="for another 60 s"):
        next_one.lease(60.0)
    (android["procfs"] / "uptime").write_text("1061.00 3.0\n")
    next_one.lease(60.0)
    with pytest.raises(RefusedError) as caught:
        timed(late)
    assert caught.value.kind == "lease"
    with pytest.raises(RefusedError) as caught:
        late.lease(60.0)
    assert caught.value.kind == "busy"
    assert timed(next_one)["samples_ns"]


def test_a_lease_ends_with_its_holder(connect_phone: Connect) -> None:
    gone, next_one = connect_phone(), connect_phone()
    gone.lease(10_000.0)
    gone._transport.close()  # as if killed: nothing is given back
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            next_one.lease(60.0)
            break
        except RefusedError:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)


def test_reboot(connect_phone: Connect, android: dict[str, Path]) -> None:
    options = {name: str(path) for name, path in android.items()}
    session = connect_phone(**options)
    session.lease(10_000.0)
    (android["procfs"] / "sys/kernel/random/boot_id").write_text("33333333\n")
    with pytest.raises(RefusedError) as caught:
        timed(session)
    assert caught.value.kind == "lease"
    again = connect_phone(**options)
    again.lease(60.0)
    assert again.facts["boot_id"] == "33333333"


def test_unplugged_in_the_middle(connect_phone: Connect, phone: FakePhone, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    session = connect_phone(script(tmp_path, f"echo begun > {begun}; sleep 1000"))
    session.lease(10_000.0)

    def unplug() -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while not begun.exists() and time.monotonic() < deadline_s:
            time.sleep(0.02)
        phone.unplug()

    thread = threading.Thread(target=unplug)
    thread.start()
    with pytest.raises(BoardError, match=r"not connected|closed|offline|hung up") as caught:
        timed(session)
    thread.join()
    assert not isinstance(caught.value, RefusedError), "the phone's fault, not the model's"
    session.close()
    again = connect_phone()
    again.lease(60.0)
    assert timed(again)["samples_ns"] == [[2_000_000]] * 3
