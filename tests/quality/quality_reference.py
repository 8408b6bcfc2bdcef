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


def _middle(values: Sequence[float]) -> float:
    return sorted(values)[(len(values) - 1) // 2]


def _tick(moves: Sequence[float]) -> float:
    """The smallest move that is one, where there are three; else 0."""
    moves = [move for move in moves if move]
    return min(moves) if len(moves) >= 3 else 0.0


def judge(
    prices: Sequence[float],
    *,
    baseline: int = 100,
    min_samples: int = 30,
    anomaly_z: float = 4,
    scale_floor: float = 1e-6,
    tick: float = 0,
    transform: str = "log_return",
) -> list[Judgement]:
    """Judge valid values in order of time."""
    is_log = transform == "log_return"
    unit = 1e7 if is_log else 1
    levels = [round(math.log(p) * 1e7) for p in prices] if is_log else list(prices)
    changes: list[float | None] = [
        level if transform == "level" else None if i == 0 else level - levels[i - 1] for i, level in enumerate(levels)
    ]
    if is_log:
        changes = [None if c is None else max(-90_000_000, min(90_000_000, c)) for c in changes]
    floors = [unit * max(scale_floor, tick / (prices[i - 1] if is_log and i else 1)) for i in range(len(prices))]

    # The first changes together, once there are enough: what does not fit among them is in no baseline.
    bases = list(changes)
    start: list[float] = []
    first = [i for i in range(min(2 * min_samples + 2, len(prices))) if changes[i] is not None][: min_samples + 1]
    if len(first) == min_samples + 1:
        middle = _middle([changes[i] for i in first])
        distances = [abs(changes[i] - middle) for i in first]
        least = _tick([unit * abs(prices[i] - prices[i - 1]) / (prices[i - 1] if is_log else 1) for i in first if i])
        reach = max(1.4826 * _middle(distances) or 1.253314 * sum(distances) / len(distances), least)
        for i in first:
            if abs(changes[i] - middle) > 4 * max(reach, floors[i]):
                bases[i] = None
        start = [bases[i] for i in first if bases[i] is not None]

    kept: list[float | None] = []
    result = []
    for i, change in enumerate(changes):
        base = [c for c in bases[max(0, i - baseline) : i] if c is not None]
        clean = [c for c in kept[max(0, i - baseline) : i] if c is not None]
        recent = [c for c in kept[max(0, i - 20) : i] if c is not None]
        if bases[i] is None:
            kept.append(None)
        elif len(base) < min_samples:
            kept.append(change)
        else:
            usual = abs(change - sum(base) / len(base)) <= 4 * max(_spread(base), floors[i])
            kept.append(change if usual else None)
        if len(clean) < min_samples and i < 2 * min_samples + 2 and len(start) > 1:
            clean = start
        elif len(clean) < min_samples:
            clean = []
        if change is None or not clean:
            result.append(Judgement(None, samples=len(clean)))
            continue
        mean = sum(clean) / len(clean)
        scale = max(_spread(clean), least if clean is start else _spread(recent), floors[i])
        before = sorted(levels[max(0, i - 3) : i])
        deviation = None if len(before) < 2 else levels[i] - (levels[i - 2] if len(before) == 2 else before[1])
        distance = change - mean
        if deviation is not None and abs(deviation) < abs(distance):
            distance = deviation
        if abs(distance / scale) > anomaly_z:
            price = prices[i - 1] if is_log else 1
            window = range(max(1, i - 2 * baseline), i)
            recent = [min(abs(c - mean), 3 * scale) for c in changes[max(0, i - 5) : i] if c is not None]
            five = math.sqrt(sum(c * c for c in recent) / len(recent)) if recent else 0.0
            scale = max(scale, five, unit * _tick([abs(prices[k] - prices[k - 1]) for k in window]) / price)
        result.append(
            Judgement(
                distance / scale,
                change / unit,
                mean / unit,
                None if deviation is None else deviation / unit,
                scale / unit,
                len(clean),
            )
        )
    return result
