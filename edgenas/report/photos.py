"""What is said of a user's own photos."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgenas.report.text import table_text
from edgenas.text import printable

if TYPE_CHECKING:
    from edgenas.data.split import Size, Split


def split_text(done: Split) -> str:
    """What `edgenas data split` prints."""

    def size(of: Size) -> str:
        return f"{of.width} x {of.height}"

    rows = [[each.name, str(each.train), str(each.validation), str(each.test)] for each in done.classes]
    rows.append(["all", *(str(count) for count in done.counts.values())])
    lines = [
        f"{done.source}: {sum(done.counts.values()):,} images of {len(done.classes)} classes, by their shorter side"
        f" from {size(done.smallest)} to {size(done.largest)}, half up to {size(done.median)} pixels",
        "",
        table_text(["class", "train", "validation", "test"], rows),
    ]
    if done.kept:
        lines.append("what is for testing is as it was")
    if done.unused:
        lines.append(f"not used: {'; '.join(map(str, done.unused))}")
    lines += done.notes
    if done.path is not None:
        lines += ["", f"written to {printable(done.path)}; give it by --dataset {printable(done.path)}"]
    return "\n".join(lines)
