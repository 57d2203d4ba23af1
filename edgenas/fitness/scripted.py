"""Networks that TorchScript wrote, computed up to where feature maps are taken.

Their modules take no hooks. But a graph can be changed: wherever a wanted module is called, the rest goes on with a
copy of what it gives; then all calls are put in line, and what was copied becomes what the graph returns.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from edgenas.data.torch_program import TorchProgram

_MARK = "tap"


class Scripted:
    """`names`: the modules at which maps can be taken. Raises ValueError where torch cannot read `program`."""

    batch: int | None = None  # what it was traced with is not in the file
    size: tuple[int, int] | None = None

    def __init__(self, program: TorchProgram) -> None:
        self._content = program.archive()
        self._graphs: dict[tuple[str, ...], tuple[Any, Any]] = {}
        self.names: Sequence[str] = [name for name, _ in self._load().named_modules() if name]

    def _load(self) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                load: Any = torch.jit.load
                module = load(io.BytesIO(self._content), map_location="cpu").eval()
        except Exception as error:  # torch names no common base for what a damaged file makes it raise
            raise ValueError("torch cannot read it") from error
        return module

    def maps(self, images: Tensor, taps: Sequence[str]) -> list[Tensor]:
        """What the modules `taps`, of `names`, give. Raises ValueError where one is not called, or not always, and
        RuntimeError what torch raises."""
        key = tuple(taps)
        if key not in self._graphs:
            module = self._load()  # anew: its graphs are changed
            self._graphs[key] = module, _tapped(module, taps)
        module, function = self._graphs[key]
        return list(function(module._c, images))


def _tapped(module: Any, taps: Sequence[str]) -> Any:
    """A function of `module` and images that gives what its modules `taps` give."""
    modules = dict(module.named_modules())
    marked = set()  # methods of modules of one type share a graph
    for path, holder in modules.items():
        below = {tap.removeprefix(f"{path}.") for tap in taps if not path or tap.startswith(f"{path}.")}
        for method in holder._c._method_names() if below else ():
            graph = holder._c._get_method(method).graph
            for call in list(_calls(graph)):
                name, key = _path(call), (str(holder._c._type()), method, call.output().debugName())
                if name in below and key not in marked:
                    marked.add(key)
                    _mark(graph, call, name)
    graph = module._c._get_method("forward").graph.copy()
    torch._C._jit_pass_inline(graph)
    found: dict[str, Any] = {}
    outer = list(graph.nodes())
    for node in _all(graph):
        if node.kind() == "aten::clone" and node.hasAttribute(_MARK):
            above = [part.partition("(")[0] for part in node.getModuleHierarchy().split(".") if part]
            above = [part for part in above if part not in ("SELF", "UNKNOWN_INSTANCE")]
            tap = ".".join([*above, node.s(_MARK)])
            node.removeAttribute(_MARK)
            if tap in taps:
                if node not in outer:
                    raise ValueError(f"its {tap} is computed under a condition only")
                found[tap] = next(iter(node.inputs()))
    for tap in taps:
        if tap not in found:
            raise ValueError(f"its {tap} is not called as a module that gives one map")
    while list(graph.outputs()):
        graph.eraseOutput(0)
    together = graph.appendNode(graph.create("prim::ListConstruct", [found[tap] for tap in taps], 1)).output()
    together.setType(torch._C.ListType.ofTensors())
    graph.registerOutput(together)
    torch._C._jit_pass_dce(graph)
    return torch._C._create_function_from_graph("maps", graph)


def _all(block: Any) -> Iterator[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _all(inner)


def _calls(graph: Any) -> Iterator[Any]:
    """Of modules, each giving one tensor."""
    for node in _all(graph):
        called = node.s("name") if node.kind() == "prim::CallMethod" else ""
        if called == "forward" and node.outputsSize() == 1 and str(node.output().type()) == "Tensor":
            yield node


def _path(call: Any) -> str:
    """The name of the module that is called, from the one whose graph it is in; "" where that is no attribute of it."""
    names: list[str] = []
    node = next(iter(call.inputs())).node()
    while node.kind() == "prim::GetAttr":
        names.insert(0, node.s("name"))
        node = next(iter(node.inputs())).node()
    return ".".join(names) if node.kind() == "prim::Param" else ""


def _mark(graph: Any, call: Any, name: str) -> None:
    with graph.insert_point_guard(call):
        nothing = graph.insertConstant(None)
    copy = graph.create("aten::clone", [call.output(), nothing], 1)
    copy.s_(_MARK, name)
    copy.insertAfter(call)
    call.output().replaceAllUsesAfterNodeWith(copy, copy.output())
