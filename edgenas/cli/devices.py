"""`edgenas devices`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

app = typer.Typer(
    invoke_without_command=True, help="List the devices, or show one. Example: edgenas devices show raspi4"
)

_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def devices(context: typer.Context, as_json: _Json = False) -> None:
    """List the devices, or show one.

    Example: edgenas devices show raspi4
    """
    if context.invoked_subcommand is not None:
        return
    from edgenas.report.text import device_facts, devices_text

    facts = device_facts()
    print(json.dumps(facts) if as_json else devices_text(facts))


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A device's name, or the path of your own profile.")],
    as_json: _Json = False,
) -> None:
    """Show one device's profile.

    Example: edgenas devices show raspi4
    """
    from edgenas.device import load
    from edgenas.report.text import device_fact, device_text

    fact = device_fact(load(name))
    print(json.dumps(fact) if as_json else device_text(fact))
