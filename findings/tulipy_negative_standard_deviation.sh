#!/usr/bin/env bash
# tulipy 0.4.0 and TA-Lib 0.8.2: the standard deviation of five equal prices, some rows after a price that was a typo.
# Guess: zero in both, since the bad price has long left the window.
# Seen: tulipy says -1.5625, a negative standard deviation, and its Bollinger bands are NaN from there on; TA-Lib says zero.
# (Running sums of squares keep the rounding error of what has left the window.)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tulipy==0.4.0 TA-Lib==0.8.2 numpy==2.4.6
"$folder/venv/bin/python" - > "$folder/seen" <<'PYTHON'
import numpy
import talib
import tulipy

prices = numpy.concatenate([numpy.full(5, 1e9), numpy.full(20, 1.25)])
print("tulipy", tulipy.stddev(prices, 5)[-1], "upper band", tulipy.bbands(prices, 5, 2)[2][-1])
print("TA-Lib", talib.STDDEV(prices, 5)[-1])
PYTHON
cat "$folder/seen"
diff - "$folder/seen" <<'SEEN'
tulipy -1.5625 upper band nan
TA-Lib 0.0
SEEN
