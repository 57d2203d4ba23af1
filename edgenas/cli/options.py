"""Options that several commands share, each declared once, and how a help text shows a default."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from edgenas import spaces
from edgenas.architecture import SearchRequest
from edgenas.errors import UsageError
from edgenas.fitness import PUBLISHED, REFERENCES, SUPERNET, FitnessSettings
from edgenas.text import printable


def option(help: str, *flags: str, default: object = None, panel: str | None = None, **how: Any) -> Any:
    """An option. `default`: what stands for it where it is not given and its own default does not say so, a value or
    words."""
    shown = True if default is None else str(default)
    return typer.Option(*flags, help=help, rich_help_panel=panel, show_default=shown, **how)


def former(*flags: str) -> Any:
    """An option by its name in earlier versions, which still works and no help text shows."""
    return typer.Option(*flags, hidden=True)


Json = Annotated[bool, option("Print JSON.", "--json")]
BoardName = Annotated[str, typer.Argument(help="The board's name.")]
OnBoard = Annotated[str, option("The board's name.", "--board")]
Runtime = Annotated[str, option("What executes models there.", default="as the board's entry or device says")]
RunName = Annotated[str, typer.Argument(help="A run's name under ./runs, or its folder.")]
TrainedRun = Annotated[str, typer.Argument(help="A trained run's name under ./runs, or its folder.")]
PackageFile = Annotated[str, typer.Argument(help="An archive that `edgenas package` made.")]
DeviceName = Annotated[str, typer.Argument(help="A device's name, or the path of your own profile.")]

# Of one text, but in another panel of each command's help.
_LIMITS = {
    "latency": "At most this long, like 5ms; of several devices on each, or raspi4=10ms,edgetpu=2ms.",
    "energy": "At most this much, like 12mJ; of several devices as for --latency.",
    "macs": "At most this many multiply-accumulates, like 60M.",
    "params": "At most this many parameters, like 0.5M.",
}


def limit(metric: str, panel: str | None = None) -> Any:
    return option(_LIMITS[metric], panel=panel)


def json_output(panel: str) -> Any:
    return option("Print JSON.", "--json", panel=panel)


def space(panel: str | None = None) -> Any:
    return option("Search space.", default=spaces.DEFAULT, panel=panel)


def dataset(default: str = SearchRequest.dataset, panel: str | None = None) -> Any:
    return option(
        "cifar10, cifar100, imagenet16-120, digits, or a folder or list of images.", default=default, panel=panel
    )


def seed(same: str, panel: str | None = None) -> Any:
    """`same`: what comes out the same."""
    return option(f"Same seed, same {same}.", default=SearchRequest.seed, panel=panel)


# Of the network that live scores come from.


def reference(panel: str | None = None) -> Any:
    names = ", ".join((*REFERENCES, SUPERNET, *PUBLISHED))
    help = f"Reference network: {names}, a file of weights, or with --taps a file of torch.export or TorchScript."
    return option(help, default=f"{FitnessSettings.reference}; {SUPERNET} where networks inherit weights", panel=panel)


def taps(panel: str | None = None) -> Any:
    help = "Layers, like layer1,layer2, of your own reference whose maps are compared, one for each of a candidate's."
    return option(help, panel=panel)


def parse_taps(text: str | None) -> tuple[str, ...]:
    return tuple(each.strip() for each in text.split(",")) if text is not None else ()


def init(panel: str | None = None) -> Any:
    help = "Weights that networks begin with: random, or inherited from the space's trained network."
    return option(help, default="inherited where the space has them", panel=panel)


def size(panel: str | None = None) -> Any:
    help = "How large the scored network is, by what its space calls that, like cells=5,channels=8."
    return option(help, default="as the space declares", panel=panel)


def cells(panel: str | None = None) -> Any:
    return option("The same as --size cells=N.", panel=panel)


def channels(panel: str | None = None) -> Any:
    return option("The same as --size channels=C.", panel=panel)


def parse_size(text: str | None, **aliases: int | None) -> dict[str, int]:
    """What --size and the flags that stand for an entry of it ask for; an entry is given once."""
    found = {name: value for name, value in aliases.items() if value is not None}
    for part in (text or "").split(",") if text is not None else []:
        name, equals, value = part.strip().partition("=")
        if not (equals and name and value.strip().lstrip("-").isdecimal() and value.isascii()):
            raise UsageError(f"--size {printable(text, 60)} is no size; write it like --size cells=5,channels=8")
        if name in found:
            raise UsageError(f"--size gives {printable(name, 40)} twice; give it once")
        found[name] = int(value[:9])
    return found


def batch_size(panel: str | None = None) -> Any:
    return option("Images in the batch.", default=f"{FitnessSettings.batch_size}; 256 photos", panel=panel)


def precision(panel: str | None = None) -> Any:
    help = "Of feature maps in live scores: float32, bfloat16, or auto: the latter where it is fast."
    return option(help, default=FitnessSettings.precision, panel=panel)


def engine(panel: str | None = None) -> Any:
    help = "Where live candidates are trained: local, ray, ray:HOST:PORT or ray://HOST:PORT."
    return option(help, default=FitnessSettings.engine, panel=panel)


def numbers(flag: str, text: str, kind: type[int] | type[float], what: str, example: str) -> list[Any]:
    """The numbers in `text`, with commas between. Raises UsageError, which says `what` they are and shows `example`."""
    try:
        return [kind(each) for each in text.split(",")]
    except ValueError:
        raise UsageError(f"{flag} {text} is no list of {what}; give one like {flag} {example}") from None
