#!/usr/bin/env bash
# simplefix 1.0.17: how does a price of 0.0000001 (a token quoted in bitcoin) go into a FIX message?
# Guess: as 0.0000001. FIX's float and Price types are digits with an optional point; they know no exponent.
# Seen: 44=1e-07, which those types do not allow; a Decimal of the same value is written 1E-7.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check simplefix==1.0.17
"$folder/venv/bin/python" - > "$folder/seen" <<'PYTHON'
from decimal import Decimal

import simplefix

for price in (0.0001, 0.0000001, Decimal("0.0000001")):
    message = simplefix.FixMessage()
    message.append_pair(44, price)
    print(type(price).__name__, message.get(44).decode())
PYTHON
cat "$folder/seen"
diff - "$folder/seen" <<'SEEN'
float 0.0001
float 1e-07
Decimal 1E-7
SEEN
