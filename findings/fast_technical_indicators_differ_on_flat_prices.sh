#!/usr/bin/env bash
# fast-technical-indicators 1.1.4 (npm), "compatible with technicalindicators": the same figures as 3.1.0 of that package?
# Guess: yes, also for a halted or illiquid instrument whose price does not move.
# Seen: on flat prices RSI is 99.01 instead of 100 and %K is 50 instead of 0; the change from a price of zero is 0 percent
# instead of infinite.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund fast-technical-indicators@1.1.4 technicalindicators@3.1.0
cat > ask.cjs <<'SCRIPT'
const flat = Array(6).fill(5);
for (const name of ["technicalindicators", "fast-technical-indicators"]) {
  const { RSI, Stochastic, ROC } = require(name);
  const k = Stochastic.calculate({ high: flat, low: flat, close: flat, period: 3, signalPeriod: 2 });
  console.log(name, "rsi", RSI.calculate({ values: flat, period: 3 })[0], "k", k[0].k,
    "roc", ROC.calculate({ values: [0, 1, 2], period: 1 })[0]);
}
SCRIPT
node ask.cjs > seen
cat seen
diff - seen <<'SEEN'
technicalindicators rsi 100 k 0 roc Infinity
fast-technical-indicators rsi 99.01 k 50 roc 0
SEEN
