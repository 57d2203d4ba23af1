"""`edgenas devices`."""

from __future__ import annotations

import typer

from edgenas.cli.options import DeviceName, Json
from edgenas.cli.results import show as show_result

app = typer.Typer(
    invoke_without_command=True, help="List the devices, or show one. Example: edgenas devices show raspi4"
)


@app.callback()
def devices(context: typer.Context, as_json: Json = False) -> None:
    """List the devices, or show one.

    Example: edgenas devices show raspi4
    """
    if context.invoked_subcommand is not None:
        return
    from edgenas.report.text import device_facts, devices_text

    facts = device_facts()
    show_result(facts, as_json, lambda: devices_text(facts))


@app.command()
def show(
    name: DeviceName,
    as_json: Json = False,
) -> None:
    """Show one device's profile.

    Example: edgenas devices show raspi4
    """
    from edgenas.device import load
    from edgenas.report.text import device_fact, device_text

    fact = device_fact(load(name))
    show_result(fact, as_json, lambda: device_text(fact))
