"""What Grafana's PostgreSQL data source makes of a query before it sends it, by its documentation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime

UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def expand(raw: str, *, start: datetime, end: datetime, interval: str = "5m", **variables: str) -> str:
    """The SQL that reaches the server: dashboard variables first, then macros; a macro that is unknown raises."""
    known: Mapping[str, str] = {"__interval": interval, "__interval_ms": str(int(seconds(interval) * 1000)),
                                **variables}
    names = "|".join(sorted(map(re.escape, known), key=len, reverse=True))
    text = re.sub(rf"\$\{{({names})\}}|\$({names})\b(?!\()", lambda m: known[m[1] or m[2]].replace("'", "''"), raw)

    def macro(match: re.Match[str]) -> str:
        name, arguments = match[1], [argument.strip() for argument in match[2].split(",")]
        low, high = (f"'{at.isoformat().replace('+00:00', 'Z')}'" for at in (start, end))
        if name == "__timeFilter":
            return f"{arguments[0]} BETWEEN {low} AND {high}"
        if name in ("__timeGroup", "__timeGroupAlias"):
            width = seconds(arguments[1].strip("'"))
            return f"time_bucket('{width:.3f}s',{arguments[0]})" + (' AS "time"' if name.endswith("Alias") else "")
        return {"__time": f'{arguments[0]} AS "time"', "__timeFrom": low, "__timeTo": high}[name]

    text = re.sub(r"\$(__\w+)\(([^)]*)\)", macro, text)
    if left := re.findall(r"\$\{?[A-Za-z_]\w*", text):
        raise ValueError(f"nobody knows {left}")
    return text


def seconds(interval: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(ms|[smhdw])", interval).groups()
    return int(number) * UNITS[unit]
