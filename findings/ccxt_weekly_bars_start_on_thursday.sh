#!/usr/bin/env bash
# ccxt 4.5.90: on which day does a weekly bar begin?
# Guess: build_ohlcvc(trades, "1w") and round_timeframe("1w", …) of the same library agree on Monday, as exchanges' own
# weekly candles do.
# Seen: round_timeframe says Monday; build_ohlcvc cuts seven-day blocks from 1970-01-01, so that its weeks begin on
# Thursday and the trades of one Monday-to-Sunday week fall into two bars.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check ccxt==4.5.90
"$folder/venv/bin/python" - > "$folder/seen" <<'PYTHON'
import ccxt

exchange = ccxt.Exchange()
monday = exchange.parse8601("2024-02-26T00:00:00Z")
day = 86_400_000
trades = [{"timestamp": monday + n * day, "price": 100 + n, "amount": 1} for n in range(7)]
print("round_timeframe", exchange.iso8601(exchange.round_timeframe("1w", trades[-1]["timestamp"])))
for bar in exchange.build_ohlcvc(trades, "1w"):
    print("build_ohlcvc", exchange.iso8601(bar[0]), "trades", bar[6])
PYTHON
cat "$folder/seen"
diff - "$folder/seen" <<'SEEN'
round_timeframe 2024-02-26T00:00:00.000Z
build_ohlcvc 2024-02-22T00:00:00.000Z trades 3
build_ohlcvc 2024-02-29T00:00:00.000Z trades 4
SEEN
