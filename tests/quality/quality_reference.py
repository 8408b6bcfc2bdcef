"""The detector once more, written from its definition and as slow as that allows: what the SQL must agree with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Judgement:
    """One row's figures, in units of the transform; `z` is None where there are too few samples."""

    z: float | None
    observed: float | None = None
    expected: float | None = None
    deviation: float | None = None
    scale: float | None = None
    samples: int = 0


def _spread(values: Sequence[float]) -> float:
    n = len(values)
    if n < 2:
        return 0.0
    return math.sqrt(max(sum(v * v for v in values) - sum(values) ** 2 / n, 0) / (n - 1))


def judge(
    prices: Sequence[float],
    *,
    baseline: int = 100,
    min_samples: int = 30,
    scale_floor: float = 1e-6,
    tick: float = 0,
    transform: str = "log_return",
) -> list[Judgement]:
    """Judge valid values in order of time."""
    unit = 1e7 if transform == "log_return" else 1
    levels = [round(math.log(p) * 1e7) for p in prices] if transform == "log_return" else list(prices)
    changes: list[float | None] = [
        level if transform == "level" else None if i == 0 else level - levels[i - 1] for i, level in enumerate(levels)
    ]
    if transform == "log_return":
        changes = [None if c is None else max(-90_000_000, min(90_000_000, c)) for c in changes]
    kept: list[float | None] = []
    result = []
    for i, change in enumerate(changes):
        floor = unit * max(scale_floor, tick / (prices[i - 1] if transform == "log_return" and i else 1))
        base = [c for c in changes[max(0, i - baseline) : i] if c is not None]
        clean = [c for c in kept[max(0, i - baseline) : i] if c is not None]
        recent = [c for c in kept[max(0, i - 20) : i] if c is not None]
        if change is None:
            kept.append(None)
        elif len(base) < min_samples:
            kept.append(change)
        else:
            usual = abs(change - sum(base) / len(base)) <= 4 * max(_spread(base), floor)
            kept.append(change if usual else None)
        if change is None or len(clean) < min_samples:
            result.append(Judgement(None, samples=len(clean)))
            continue
        mean = sum(clean) / len(clean)
        scale = max(_spread(clean), _spread(recent), floor)
        deviation = levels[i] - sorted(levels[i - 3 : i])[1]
        distance = min(change - mean, deviation, key=abs) if abs(deviation) < abs(change - mean) else change - mean
        result.append(
            Judgement(distance / scale, change / unit, mean / unit, deviation / unit, scale / unit, len(clean))
        )
    return result
