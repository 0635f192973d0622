"""The charts of the page, as pictures that lie in it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import altair as alt
import pyarrow as pa
import vl_convert

from oneroster_source.errors import clean

Row: TypeAlias = Mapping[str, Any]

WIDTH, HEIGHT = 290, 170
"""As wide as a phone, so that letters keep their size there."""
BLUE, GREEN, ORANGE, GREY = "#2b6a99", "#3f9c73", "#d9722e", "#5b6673"
_DAYS = alt.Axis(labelExpr="timeFormat(toDate(datum.value), '%d %b')", labelAngle=-40)
_FONT = "Helvetica, Arial, sans-serif"


def sizes(rows: Sequence[Row]) -> str:
    """Classes by number of pupils, in steps of five."""
    steps: dict[int, int] = {}
    for row in rows:
        step = (int(row["students"]) - 1) // 5
        steps[step] = steps.get(step, 0) + int(row["classes"])
    data = [
        {
            "pupils": f"{5 * step + 1}\N{EN DASH}{5 * step + 5}",
            "place": step,
            "classes": steps.get(step, 0),
        }
        for step in range(min(steps), max(steps) + 1)
    ]
    return _bars(data, "pupils", "classes", "pupils in the class", BLUE)


def years(rows: Sequence[Row]) -> str:
    """Pupils by year group, in the order of the years; those without one come last."""

    def place(row: Row) -> tuple[bool, int, str]:
        name = row["year_group"] or ""
        return not name, int(name) if name.isdecimal() else 99, name

    data = [
        {
            "year": clean(row["year_group"] or "none", limit=20),
            "pupils": int(row["students"]),
            "place": place_,
        }
        for place_, row in enumerate(sorted(rows, key=place))
    ]
    return _bars(data, "year", "pupils", "year group", GREEN)


def changes(rows: Sequence[Row]) -> str:
    """Joins above the line and leaves below it, for each week."""
    data = [
        {"week": str(row["week"]), "what": what, "pupils": sign * int(row[what])}
        for row in rows
        for what, sign in (("joins", 1), ("leaves", -1))
    ]
    chart = (
        alt.Chart(pa.Table.from_pylist(data))
        .mark_bar(cornerRadiusEnd=2)
        .encode(
            alt.X("week:O", title="week from", axis=_DAYS),
            alt.Y(
                "pupils:Q", title=None, axis=alt.Axis(labelExpr="abs(datum.value)", tickMinStep=1)
            ),
            alt.Color(
                "what:N",
                scale=alt.Scale(domain=["joins", "leaves"], range=[GREEN, ORANGE]),
                legend=alt.Legend(orient="top", title=None),
            ),
        )
    )
    return _picture(chart)


def _bars(data: list[dict[str, Any]], x: str, y: str, title: str, color: str) -> str:
    base = alt.Chart(pa.Table.from_pylist(data)).encode(
        alt.X(f"{x}:N", sort=alt.SortField("place"), title=title, axis=alt.Axis(labelAngle=0)),
        alt.Y(f"{y}:Q", title=None, axis=None),
    )
    labels = base.mark_text(dy=-7, color=GREY, fontSize=11).encode(alt.Text(f"{y}:Q", format=","))
    return _picture(base.mark_bar(cornerRadiusEnd=3, color=color) + labels)


def _picture(chart: alt.Chart | alt.LayerChart) -> str:
    """A chart as the address of a picture that needs no network."""
    styled = (
        chart.properties(width=WIDTH, height=HEIGHT, background="transparent")
        .configure(font=_FONT)
        .configure_view(stroke=None)
        .configure_axis(
            grid=False,
            labelFontSize=11,
            titleFontSize=11,
            titleFontWeight="normal",
            labelColor=GREY,
            titleColor=GREY,
            domainColor="#c9ced6",
            tickColor="#c9ced6",
        )
        .configure_legend(labelFontSize=11, labelColor=GREY)
    )
    svg = vl_convert.vegalite_to_svg(styled.to_json())
    return "data:image/svg+xml;base64," + b64encode(svg.encode()).decode("ascii")
