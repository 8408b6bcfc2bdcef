#!/usr/bin/env bash
# candlestick-convert 7.0.0 (npm): what becomes of a five-minute bar when one of its minutes had no trade?
# Guess: incomplete bars are either left out or made of the four minutes that are there, whichever minute is missing.
# Seen, with default arguments: a bar that lacks a minute in the middle is made of the rest; one that lacks its first
# disappears with the four others, without a word.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund candlestick-convert@7.0.0
cat > ask.mjs <<'SCRIPT'
import convert from "candlestick-convert";
const start = Date.UTC(2024, 0, 1);
const minutes = Array.from({ length: 10 }, (_, n) => [start + n * 60000, 100 + n, 101 + n, 99 + n, 100 + n, 10]);
for (const missing of [7, 5]) {
  const bars = convert.batchCandles(minutes.filter((_, n) => n !== missing), 60, 300);
  console.log("without minute", missing, "volumes", JSON.stringify(bars.map((bar) => bar[5])));
}
SCRIPT
node ask.mjs > seen
cat seen
diff - seen <<'SEEN'
without minute 7 volumes [50,40]
without minute 5 volumes [50]
SEEN
