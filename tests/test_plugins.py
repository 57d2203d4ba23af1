from __future__ import annotations

import pytest

from edgenas import plugins
from edgenas.errors import UnknownNameError, UsageError


def test_built_ins_come_by_entry_points() -> None:
    assert "nasbench201" in plugins.names("spaces")
    assert {"table", "live"} <= set(plugins.names("fitness"))
    assert {"analytic", "table", "predictor"} <= set(plugins.names("costs"))
    assert plugins.load("spaces", "nasbench201")().choices == (5,) * 6


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="no search space 'nasbench210'; did you mean nasbench201") as error:
        plugins.load("spaces", "nasbench210")
    assert error.value.exit_code == 2


@pytest.mark.parametrize(("package", "extra"), [("torch", "live"), ("paramiko", "ssh"), ("ray", "ray")])
def test_a_missing_package_names_the_extra(package: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        value = "x:y"

        def load(self) -> object:
            raise ModuleNotFoundError(f"No module named '{package}'", name=package)

    monkeypatch.setattr(plugins, "_found", lambda kind: {"live": Entry()})
    wanted = rf"needs {package}, which is not installed; run: pip install 'edgenas\[{extra}\]'"
    with pytest.raises(UsageError, match=wanted):
        plugins.load("fitness", "live")


def test_broken_plug_in_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        value = "their_package:Space"

        def load(self) -> object:
            raise ImportError("cannot import name 'Space'")

    monkeypatch.setattr(plugins, "_found", lambda kind: {"theirs": Entry()})
    with pytest.raises(UsageError, match=r"plug-in 'theirs' \(their_package:Space\) cannot be imported"):
        plugins.load("spaces", "theirs")
