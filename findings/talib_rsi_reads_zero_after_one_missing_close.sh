#!/usr/bin/env bash
# TA-Lib 0.8.2 (Python): what do its indicators say once a single close is NaN?
# Guess: NaN while the gap is inside the window, or NaN to the end; never a figure that somebody could trade on.
# Seen: the moving average is NaN to the end; RSI and CMO say 0.0 from the gap to the end (0 is "deeply oversold"), and
# ADX repeats its last value before the gap for ever. Nothing is raised.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check TA-Lib==0.8.2 numpy==2.4.6
"$folder/venv/bin/python" - > "$folder/seen" <<'PYTHON'
import numpy
import talib

closes = 100 + numpy.sin(numpy.arange(60)) * 2 + numpy.arange(60) / 10
closes[30] = numpy.nan
high, low = closes + 1, closes - 1
for name, values in {"SMA": talib.SMA(closes, 5), "RSI": talib.RSI(closes, 5), "CMO": talib.CMO(closes, 5),
                     "ADX": talib.ADX(high, low, closes, 5)}.items():
    print(name, "before", f"{values[29]:.2f}", "after", *(f"{values[n]:.2f}" for n in (31, 45, 59)))
PYTHON
cat "$folder/seen"
diff - "$folder/seen" <<'SEEN'
SMA before 103.18 after nan nan nan
RSI before 40.32 after 0.00 0.00 0.00
CMO before -19.36 after 0.00 0.00 0.00
ADX before 23.45 after 23.45 23.45 23.45
SEEN
