#!/usr/bin/env bash
# pandas_market_calendars 5.5.0 and exchange_calendars 4.13.2: is Eurex open on 27 December when Christmas is a weekend?
# Guess: both say yes, because Germany does not move holidays and Eurex's own calendars list only 24 to 26 December.
# Seen: pandas_market_calendars has no session on 2021-12-27, 2021-12-28, 2022-12-27 and 2026-12-28 (it moves Christmas
# and Boxing Day to the next weekday, as London does); exchange_calendars has all four.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    pandas_market_calendars==5.5.0 exchange_calendars==4.13.2 pandas==3.1.1
"$folder/venv/bin/python" - > "$folder/seen" <<'PYTHON'
import exchange_calendars
import pandas_market_calendars

sessions = exchange_calendars.get_calendar("XEUR", start="2020-01-02", end="2026-12-31")
valid = {str(day.date()) for day in pandas_market_calendars.get_calendar("EUREX").valid_days("2020-01-02", "2026-12-31")}
for day in ("2021-12-27", "2021-12-28", "2022-12-27", "2023-12-27", "2026-12-28"):
    print(day, "exchange_calendars", sessions.is_session(day), "pandas_market_calendars", day in valid)
PYTHON
cat "$folder/seen"
diff - "$folder/seen" <<'SEEN'
2021-12-27 exchange_calendars True pandas_market_calendars False
2021-12-28 exchange_calendars True pandas_market_calendars False
2022-12-27 exchange_calendars True pandas_market_calendars False
2023-12-27 exchange_calendars True pandas_market_calendars True
2026-12-28 exchange_calendars True pandas_market_calendars False
SEEN
