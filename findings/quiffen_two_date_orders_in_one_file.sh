#!/usr/bin/env bash
# quiffen 4.0.1: what does a QIF file with days first become when it is read with day_first=False, and its decimal commas?
# Guess: refused, since 13/04/24 cannot be read month first and 1.234,56 is no number with a point for decimals.
# Seen: 03/04/24 becomes 4 March and 13/04/24 of the same file 13 April; 10,00 becomes 1000 and 1.234,56 becomes 1.23456.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check quiffen==4.0.1
"$folder/venv/bin/python" - > "$folder/seen" <<'PYTHON'
import quiffen

text = "!Type:Bank\nD03/04/24\nT10,00\nPfirst\n^\nD13/04/24\nT1.234,56\nPsecond\n^\n"
for account in quiffen.Qif.parse_string(text, day_first=False).accounts.values():
    for transactions in account.transactions.values():
        for transaction in transactions:
            print(transaction.payee, transaction.date.date(), transaction.amount)
PYTHON
cat "$folder/seen"
diff - "$folder/seen" <<'SEEN'
first 2024-03-04 1000
second 2024-04-13 1.23456
SEEN
