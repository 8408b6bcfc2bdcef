#!/usr/bin/env bash
# candlestick-convert 7.0.0 (npm): are bars made from ticks consistent, low <= open <= high?
# Guess: yes, since every price of a bar comes from the ticks of its own period.
# Seen: from the second bar on, open is the close of the bar before, even across minutes without a tick, while high and low
# come from the bar's own ticks: with rising prices every open but the first lies below the low.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund candlestick-convert@7.0.0
cat > ask.mjs <<'SCRIPT'
import convert from "candlestick-convert";
const start = Date.UTC(2024, 0, 1);
const ticks = [0, 20, 40, 200, 220, 300].map((second, n) => ({ time: start + second * 1000, price: 100 + n, quantity: 1 }));
for (const bar of convert.batchTicksToCandle(ticks, 60, true))
  console.log(new Date(bar.time).toISOString(), "open", bar.open, "low", bar.low, "high", bar.high);
SCRIPT
node ask.mjs > seen
cat seen
diff - seen <<'SEEN'
2024-01-01T00:00:00.000Z open 100 low 100 high 102
2024-01-01T00:03:00.000Z open 102 low 103 high 104
2024-01-01T00:05:00.000Z open 104 low 105 high 105
SEEN
