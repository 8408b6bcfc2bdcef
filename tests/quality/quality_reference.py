"""The detector once more, written from its definition and as slow as that allows: what the SQL must agree with."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Judgement:
    """One row's figures, in units of the transform; `z` is None where there are too few samples.

    `wide` is the scale with all that counts where a row is flagged; `field` is what of a bar stands out, None for the
    judged value.
    """

    z: float | None
    observed: float | None = None
    expected: float | None = None
    deviation: float | None = None
    scale: float | None = None
    samples: int = 0
    wide: float | None = None
    is_early: bool = False
    field: str | None = None


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
    splits: Mapping[int, float] | None = None,
) -> list[Judgement]:
    """Judge valid values in order of time; `splits` are the ratios of those known, by the first row after each."""
    is_log = transform == "log_return"
    unit = 1e7 if is_log else 1
    shifts = list(itertools.accumulate(round(1e7 * math.log((splits or {}).get(i, 1))) for i in range(len(prices))))

    def price(k: int, i: int) -> float:
        """Price of row k in the shares of row i."""
        return prices[k] if shifts[k] == shifts[i] else prices[k] * math.exp((shifts[k] - shifts[i]) / 1e7)

    levels = [round(math.log(p) * 1e7) + s for p, s in zip(prices, shifts, strict=True)] if is_log else list(prices)
    changes: list[float | None] = [
        level if transform == "level" else None if i == 0 else level - levels[i - 1] for i, level in enumerate(levels)
    ]
    if is_log:
        changes = [None if c is None else max(-90_000_000, min(90_000_000, c)) for c in changes]
    floors = [unit * max(scale_floor, tick / (price(i - 1, i) if is_log and i else 1)) for i in range(len(prices))]

    # The first changes together, once there are enough: what does not fit among them is in no baseline.
    bases = list(changes)
    start: list[float] = []
    first = [i for i in range(min(2 * min_samples + 2, len(prices))) if changes[i] is not None][: min_samples + 1]
    if len(first) == min_samples + 1:
        middle = _middle([changes[i] for i in first])
        distances = [abs(changes[i] - middle) for i in first]
        least = _tick([unit * abs(prices[i] - prices[i - 1]) / (prices[i - 1] if is_log else 1)
                       for i in first if i and shifts[i] == shifts[i - 1]])
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
        if deviation is not None and abs(deviation) < abs(distance) and transform != "level":
            distance = deviation
        previous = price(i - 1, i) if is_log and i else 1
        window = [k for k in range(max(1, i - 2 * baseline), i) if shifts[k] == shifts[k - 1]]
        recent = [min(abs(c - mean), 3 * scale) for c in changes[max(0, i - 5) : i] if c is not None]
        five = math.sqrt(sum(c * c for c in recent) / len(recent)) if recent else 0.0
        wide = max(scale, five, unit * _tick([abs(price(k, i) - price(k - 1, i)) for k in window]) / previous)
        if abs(distance / scale) > anomaly_z:
            scale = wide
        result.append(
            Judgement(
                distance / scale,
                change / unit,
                mean / unit,
                None if deviation is None else deviation / unit,
                scale / unit,
                len(clean),
                wide / unit,
                clean is start,
            )
        )
    return result


def _steady(values: Sequence[float]) -> tuple[float, float, int]:
    """Mean, deviation and number of values without those further than 4 deviations from the mean."""
    kept = [v for v in values if abs(v - statistics.fmean(values)) <= 4 * statistics.stdev(values)]
    return statistics.fmean(kept), statistics.stdev(kept), len(kept)


def _outside(body: float, gap: float) -> float:
    """How far an open lies outside of two closes, given its way from each."""
    return min(body, gap, key=abs) if body * gap > 0 else 0.0


def judge_bars(
    bars: Sequence[tuple[float, float, float, float, float]], *, baseline: int = 100, min_samples: int = 30,
    anomaly_z: float = 4,
) -> list[Judgement]:
    """Judge bars (open, high, low, close, volume) without gaps in time: by the close, else by what else stands out."""
    judged = judge([close for _, _, _, close, _ in bars], baseline=baseline, min_samples=min_samples)
    upper = [math.log(h / max(o, c)) for o, h, _, c, _ in bars]
    lower = [math.log(min(o, c) / low) for o, _, low, c, _ in bars]
    volumes = [math.log(1 + v) for *_, v in bars]
    opens = [0.0] + [_outside(math.log(o / c), math.log(o / before[3]))
                     for before, (o, _, _, c, _) in itertools.pairwise(bars)]
    result = []
    for i, j in enumerate(judged):
        found = [j]
        if j.z is not None and not j.is_early:
            before = range(max(0, i - baseline), i)
            longest = max(abs(upper[i - 1]), abs(lower[i - 1]))
            for field, shadows in (("high", upper), ("low", lower)):
                if abs(shadows[i]) > max(2 * longest, 0.6 * anomaly_z * j.wide):
                    mean, spread, n = _steady([shadows[k] for k in before])
                    scale = max(2.125 * spread, 0.6 * j.wide)
                    found.append(Judgement((shadows[i] - mean) / scale, shadows[i], mean, None, scale, n, field=field))
            if abs(opens[i]) > anomaly_z * j.wide / 2:
                mean, spread, n = _steady([opens[k] for k in before[1:]])
                scale = max(spread, j.wide / 2)
                found.append(Judgement((opens[i] - mean) / scale, opens[i], mean, None, scale, n, field="open"))
            if abs(volumes[i] - volumes[i - 1]) > math.log(20):
                mean, spread, n = _steady([volumes[k] for k in before])
                scale, deviation = max(spread, 0.1), volumes[i] - sorted(volumes[i - 3 : i])[1]
                z = min(volumes[i] - mean, deviation, key=abs) / scale
                found.append(Judgement(z, volumes[i], mean, deviation, scale, n, field="volume"))
        if j.z is None or abs(j.z) <= anomaly_z:
            odd = [f for f in found[1:] if f.samples >= min_samples - (f.field == "open") and abs(f.z) > anomaly_z]
            j = max(odd, key=lambda f: abs(f.z)) if odd else j
        result.append(j)
    return result
