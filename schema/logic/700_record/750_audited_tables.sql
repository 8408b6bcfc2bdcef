-- The tables on record: every plain table and every hypertable, except
--
--     the record itself (audit_log, audit_tx, audit_seals, timeseries_archive), which guards itself;
--     quality_issues, which the quality engine derives from the data and rewrites as it sees fit;
--     ingestion_rejects, which only ever grows, a million rows at a time if a file is bad enough.
--
-- Of anomalies the reviews are recorded, not what the engine finds; of time_index, which is computed, corrections only.

SELECT public.attach_audit(t.name::regclass)
  FROM unnest(ARRAY[
           'public.assets', 'public.sources', 'public.market_calendar', 'public.ingestion_tasks', 'public.models',
           'public.predictions', 'public.forecasts', 'public.lineage', 'public.strategies', 'public.strategy_rules',
           'public.signals', 'public.backtest_configs', 'public.backtest_results', 'public.trades', 'public.positions',
           'public.learning_entries', 'public.users', 'public.watchlists', 'public.watchlist_items', 'public.alerts',
           'public.notifications', 'public.timeseries_data', 'public.candles', 'public.quotes', 'public.ticks',
           'public.sentiment_data', 'public.indicators', 'public.features', 'public.corporate_actions'
       ]) AS t (name);

-- What decides how data are judged and how long they are kept is changed for a reason, or not at all.
SELECT public.attach_audit(t.name::regclass, p_require_reason => true)
  FROM unnest(ARRAY['public.validation_rules', 'public.quality_profiles', 'public.data_policies']) AS t (name);

SELECT public.attach_audit('public.time_index', p_inserts => false);

SELECT public.attach_audit(
           'public.anomalies', p_inserts => false,
           p_bookkeeping => (
               SELECT array_agg(a.attname::text)
                 FROM pg_catalog.pg_attribute AS a
                WHERE a.attrelid = 'public.anomalies'::regclass
                  AND a.attnum > 0
                  AND NOT a.attisdropped
                  AND a.attname NOT IN ('status', 'reviewed_by', 'reviewed_at', 'notes')
           )
       );
