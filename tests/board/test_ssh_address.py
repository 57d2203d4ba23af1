"""Addresses of SSH as people write them."""

from __future__ import annotations

import pytest

from edgenas.board.ssh_address import Address, among, checked, read_address, read_addresses
from edgenas.errors import BoardError, UsageError


@pytest.mark.parametrize(
    ("text", "meant", "shown"),
    [
        ("raspberry", Address("raspberry"), None),
        ("pi@192.168.0.7", Address("192.168.0.7", "pi"), None),
        ("pi@raspberry:2222", Address("raspberry", "pi", 2222), None),
        ("a@b.example@raspberry", Address("raspberry", "a@b.example"), None),
        ("::1", Address("::1"), None),
        ("[::1]:2222", Address("::1", None, 2222), None),
        ("[::1]", Address("::1"), "::1"),
        ("pi@fe80::1%eth0", Address("fe80::1%eth0", "pi"), None),
        ("pi@[fe80::1%eth0]:22", Address("fe80::1%eth0", "pi", 22), None),
        ("ssh://pi@raspberry:2222", Address("raspberry", "pi", 2222), "pi@raspberry:2222"),
        ("ssh://raspberry/", Address("raspberry"), "raspberry"),
        ("SSH://pi@[2001:db8::7]:65535/", Address("2001:db8::7", "pi", 65535), "pi@[2001:db8::7]:65535"),
        (" pi@raspberry ", Address("raspberry", "pi"), "pi@raspberry"),
        ("größe.example", Address("größe.example"), None),
    ],
)
def test_an_address_is_read_and_written(text: str, meant: Address, shown: str | None) -> None:
    assert read_address(text, "--ssh") == meant
    assert str(meant) == (shown or text)
    assert checked(meant, "--ssh") == meant


@pytest.mark.parametrize(
    "text",
    [
        *["", "pi@", "@host", "host:port", "host:", "a:b:c", "[::1", "[::1]2222", "::1]:22", "http://host", "ssh://"],
        *["two words", "-oProxyCommand=id", "pi@-oProxyCommand=id", "a;b@host", "$(id)", "`id`@host", "host/folder"],
        *["pi@[]:22", "pi@host:\uff12", "pi\nx@host", "pi\\@host", "\x1b[31m", "ssh://pi@host:22/folder"],
        *["pi@::1:22:x", "1::2::3"],
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--ssh .*is no address; write it like pi@192") as error:
        read_address(text, "--ssh")
    assert str(error.value).isprintable()


@pytest.mark.parametrize("port", ["0", "65536", "99999", "123456", "9" * 5000])
def test_a_port_out_of_range_is_refused(port: str) -> None:
    with pytest.raises(UsageError, match=r"--ssh names the port \d+(\.\.\.)?; ports are 1 to 65535"):
        read_address(f"pi@host:{port}", "--ssh")


@pytest.mark.parametrize("address", [Address("-v"), Address("a", "b c -d"), Address("a", None, 0), Address("")])
def test_an_address_from_a_file_of_boards_is_checked_too(address: Address) -> None:
    with pytest.raises(BoardError, match=r"ssh .*(is no address|names the port)"):
        checked(address, "ssh", BoardError)


def test_a_list_of_hosts_to_jump_through() -> None:
    assert read_addresses("me@gate, ssh://[::1]:33", "--jump") == (Address("gate", "me"), Address("::1", None, 33))
    assert read_addresses("None", "--jump") == ()
    with pytest.raises(UsageError, match=r"--jump .*is no address"):
        read_addresses("gate,,board", "--jump")


@pytest.mark.parametrize(
    ("patterns", "found"),
    [
        ("*.lab", True),
        ("pi.???", True),
        ("*.lab,!pi.*", False),
        ("!pi.*,*.lab", False),
        ("!other", False),
        ("!other,*", True),
        ("pi.[l]ab", False),
        ("", False),
        ("*" * 200 + "x", False),
        ("*a" * 50, False),
    ],
)
def test_patterns_mean_what_openssh_has_them_mean(patterns: str, found: bool) -> None:
    assert among("pi.lab", patterns.split(",")) is found
