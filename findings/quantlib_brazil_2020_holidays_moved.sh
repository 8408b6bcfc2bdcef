#!/usr/bin/env bash
# QuantLib 1.44 and exchange_calendars 4.13.2: did São Paulo's exchange trade on 2020-07-09 and 2020-11-20?
# Guess: the two agree on the past. Both days were municipal or state holidays that the pandemic laws of May 2020 brought
# forward, so that B3 traded on them; every other year to 2021 it did not.
# Seen: QuantLib's Brazil(Exchange) calls both days holidays, exchange_calendars has both sessions.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    QuantLib==1.44 exchange_calendars==4.13.2 pandas==2.3.3
"$folder/venv/bin/python" - > "$folder/seen" <<'PYTHON'
import datetime

import exchange_calendars
import QuantLib

sessions = exchange_calendars.get_calendar("BVMF", start="2019-01-02", end="2021-12-30")
brazil = QuantLib.Brazil(QuantLib.Brazil.Exchange)
for text in ("2019-07-09", "2019-11-20", "2020-07-09", "2020-11-20", "2021-07-09"):
    day = datetime.date.fromisoformat(text)
    print(text, "exchange_calendars", sessions.is_session(text),
          "QuantLib", brazil.isBusinessDay(QuantLib.Date(day.day, day.month, day.year)))
PYTHON
cat "$folder/seen"
diff - "$folder/seen" <<'SEEN'
2019-07-09 exchange_calendars False QuantLib False
2019-11-20 exchange_calendars False QuantLib False
2020-07-09 exchange_calendars True QuantLib False
2020-11-20 exchange_calendars True QuantLib False
2021-07-09 exchange_calendars False QuantLib False
SEEN
