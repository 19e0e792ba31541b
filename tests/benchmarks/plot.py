"""The ratios of a run as a picture: an SVG of bars, written by hand.

A library would bring more than a hundred times this code for one kind of picture. Each bar is a
median, the line through it goes from the least to the most, the tick is the target. The axis is
logarithmic: twice as fast is as far to the right as half as fast is to the left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final
from xml.sax.saxutils import escape

from tests.benchmarks.measure import Row

LEFT: Final = 690
WIDTH: Final = 480
RIGHT: Final = 90
LINE: Final = 34
TOP: Final = 40
STYLE: Final = """
  text { font: 12px sans-serif; fill: #222 } .beside { fill: #767676 }
  .met { fill: #4c9a5b } .missed { fill: #c8553d } .plain { fill: #8b98a5 }
  .grid { stroke: #ccc } .one { stroke: #666 } .spread { stroke: #222; stroke-width: 1.5 }
  .target { stroke: #1d3557; stroke-width: 3 }
"""
STEPS: Final = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)


def svg(rows: Sequence[Row]) -> str:
    """Draw every row that has a ratio."""
    shown = [row for row in rows if row.ratios]
    axis = _Axis(shown)
    height = TOP + LINE * len(shown) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + RIGHT}" '
        f'height="{height}">',
        f"<style>{STYLE}</style>",
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{LEFT}" y="14">ratio, here to there; the thick line is the target</text>',
        *axis.grid(height),
        *(part for place, row in enumerate(shown) for part in _bar(axis, row, TOP + LINE * place)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


class _Axis:
    def __init__(self, rows: Sequence[Row]) -> None:
        values = [value for row in rows for value in row.ratios if value > 0]
        bounds = [row.target.bound for row in rows if row.target]
        self._least = math.log(min([*values, *bounds, 0.5]) / 1.1)
        self._most = math.log(max([*values, *bounds, 2.0]) * 1.1)

    def x(self, value: float) -> float:
        place = (math.log(value) - self._least) / (self._most - self._least)
        return round(LEFT + WIDTH * place, 1)

    def grid(self, height: int) -> list[str]:
        inside = [step for step in STEPS if self._least <= math.log(step) <= self._most]
        parts = []
        for step in inside:
            kind, x = "one" if step == 1 else "grid", self.x(step)
            parts.append(_line(kind, x, TOP - 6, x, height - 10))
            parts.append(f'<text x="{x}" y="{TOP - 9}" text-anchor="middle">{step}</text>')
        return parts


def _bar(axis: _Axis, row: Row, top: int) -> list[str]:
    ratio = row.ratio
    assert ratio is not None
    kind = row.verdict or "plain"
    middle, begin = top + LINE / 2, min(axis.x(1), axis.x(ratio.median))
    width = round(abs(axis.x(ratio.median) - axis.x(1)), 1)
    parts = [
        _label(row.work, middle - 3),
        _label(f"beside {row.there.name}", middle + 11, "beside"),
        f'<rect class="{kind}" x="{begin}" y="{top + 8}" width="{width}" height="{LINE - 16}"/>',
        _line("spread", axis.x(ratio.least), middle, axis.x(ratio.most), middle),
        f'<text x="{LEFT + WIDTH + 8}" y="{middle + 4}">{ratio.median:.2f}</text>',
    ]
    if row.target:
        at = axis.x(row.target.bound)
        parts.append(_line("target", at, top + 6, at, top + LINE - 6))
    return parts


def _label(text: str, y: float, kind: str = "name") -> str:
    return f'<text class="{kind}" x="{LEFT - 8}" y="{y}" text-anchor="end">{escape(text)}</text>'


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>'
