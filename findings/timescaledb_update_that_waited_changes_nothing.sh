#!/usr/bin/env bash
# timescaledb 2.31.0 on PostgreSQL 18.6 (Debian sid): what does an UPDATE change that waited for another session's UPDATE
# of the same row?
# Guess: the row as the other left it, as READ COMMITTED has it on any table, so that of two increments both count.
# Seen: on a plain table 2; on a hypertable UPDATE 0, without an error, and the second increment is gone; DELETE alike.
# (Its source puts off making the real plan since 2.28.1, and looks at the changed row with one that yields none.)
# Takes root and debootstrap: the system lives in a temporary folder and in namespaces of its own.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf --one-file-system "$folder"' EXIT
chmod 755 "$folder"
debootstrap --variant=minbase --include=ca-certificates sid "$folder" http://deb.debian.org/debian > /dev/null
cp -L /etc/resolv.conf "$folder/etc/resolv.conf"
cat > "$folder/root/ask" <<'ASK'
set -eu
apt-get install --quiet=2 --yes --no-install-recommends postgresql-18=18.6-3 postgresql-18-timescaledb=2.31.0+dfsg-1 \
    > /dev/null 2>&1
cd /var/lib/postgresql
cat > ask.sh <<'SESSION'
bin=/usr/lib/postgresql/18/bin
$bin/initdb --pgdata=data > /dev/null
$bin/pg_ctl start --silent --wait --pgdata=data --log=log \
    --options="-c listen_addresses= -c unix_socket_directories=/tmp -c shared_preload_libraries=timescaledb"
sql() { psql --host=/tmp --dbname=postgres --no-psqlrc --tuples-only --no-align --command="$1" 2> /dev/null; }
sql "CREATE EXTENSION timescaledb" > /dev/null
for name in a_plain_table a_hypertable; do
    sql "CREATE TABLE $name (at timestamptz NOT NULL, n integer NOT NULL)" > /dev/null
    [ $name = a_plain_table ] || sql "SELECT create_hypertable('$name', 'at')" > /dev/null
    for second in "UPDATE $name SET n = n + 1" "DELETE FROM $name"; do
        sql "TRUNCATE $name" > /dev/null
        sql "INSERT INTO $name VALUES ('2024-01-01', 0)" > /dev/null
        sql "BEGIN; UPDATE $name SET n = n + 1; SELECT pg_sleep(3); COMMIT" > /dev/null &
        sleep 1
        sql "$second" | sed "s/^/$name: /"
        wait %%
        sql "SELECT 'n = ' || n FROM $name"
    done
done
$bin/pg_ctl stop --silent --mode=immediate --pgdata=data
SESSION
exec setpriv --reuid=postgres --regid=postgres --init-groups bash ask.sh
ASK
unshare --mount --pid --fork --kill-child -- sh -c '
    mount --make-rprivate / && mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" &&
    mount -t tmpfs tmpfs "$0/dev/shm"
    exec chroot "$0" /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive \
        LC_ALL=C.UTF-8 bash /root/ask
' "$folder" > "$folder/seen"
cat "$folder/seen"
diff - "$folder/seen" <<'SEEN'
a_plain_table: UPDATE 1
n = 2
a_plain_table: DELETE 1
a_hypertable: UPDATE 0
n = 1
a_hypertable: DELETE 0
n = 1
SEEN
