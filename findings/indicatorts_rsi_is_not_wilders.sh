#!/usr/bin/env bash
# indicatorts 2.2.2, technicalindicators 3.1.0 and trading-signals 8.3.0 (npm): one RSI(14)?
# Guess: all three smooth as Wilder did (previous average times 13 plus the new change, over 14), whose worked example with
# these 20 closes is 70.46, 66.25, 66.48, 69.35, 66.29, 57.92.
# Seen: two do; indicatorts starts with the same 70.46 and then falls off: 65.95, 66.20, 69.27, 66.04, 57.24.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund indicatorts@2.2.2 technicalindicators@3.1.0 trading-signals@8.3.0
cat > ask.mjs <<'SCRIPT'
import indicators from "technicalindicators";
import { rsi } from "indicatorts";
import { RSI } from "trading-signals";
const closes = [44.34, 44.09, 44.15, 43.61, 44.33, 44.83, 45.1, 45.42, 45.84, 46.08, 45.89, 46.03, 45.61, 46.28, 46.28,
  46.0, 46.03, 46.41, 46.22, 45.64];
const show = (name, values) => console.log(name, values.slice(-6).map((value) => value.toFixed(2)).join(" "));
show("technicalindicators", indicators.RSI.calculate({ values: closes, period: 14 }));
const signal = new RSI(14);
show("trading-signals", closes.map((close) => signal.add(close)).filter((value) => value !== null && value !== undefined)
  .map(Number));
show("indicatorts", rsi(closes, { period: 14 }));
SCRIPT
node ask.mjs > seen
cat seen
diff - seen <<'SEEN'
technicalindicators 70.46 66.25 66.48 69.35 66.29 57.92
trading-signals 70.46 66.25 66.48 69.35 66.29 57.92
indicatorts 70.46 65.95 66.20 69.27 66.04 57.24
SEEN
