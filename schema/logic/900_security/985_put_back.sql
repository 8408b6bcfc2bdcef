-- What had to be set aside while objects that it stands on were made anew: aggregates of a user's own first, as views
-- may stand on them.

DO $do$
BEGIN
    PERFORM _tidemark.bring_back_rollups();
    PERFORM _tidemark.put_back();
END
$do$;
