#!/usr/bin/env bash
# mt-940 5.1.1: does opening balance plus the amounts give the closing balance of a statement that reverses a credit?
# Guess: yes. SWIFT's mark RC is the reversal of a credit, so it takes money away as D does, and D's amounts come negative.
# Seen: D comes negative, RC positive: 1,000.00 + 12.00 - 0.50 - 100.00 is 911.50 in the statement, 1,111.50 by the amounts.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check mt-940==5.1.1
"$folder/venv/bin/python" - > "$folder/seen" <<'PYTHON'
import mt940

statement = mt940.parse(""":20:STARTUMS
:25:12345678/0123456789
:28C:00001/001
:60F:C240101EUR1000,00
:61:2401020102C12,00NTRFX
:61:2401020102D0,50NTRFX
:61:2401020102RC100,00NTRFX
:62F:C240102EUR911,50
""")
for transaction in statement:
    print(transaction.data["status"], transaction.data["amount"].amount)
opening = statement.data["final_opening_balance"].amount.amount
print("closing by amounts", opening + sum(one.data["amount"].amount for one in statement))
print("closing as stated", statement.data["final_closing_balance"].amount.amount)
PYTHON
cat "$folder/seen"
diff - "$folder/seen" <<'SEEN'
C 12.00
D -0.50
RC 100.00
closing by amounts 1111.50
closing as stated 911.50
SEEN
