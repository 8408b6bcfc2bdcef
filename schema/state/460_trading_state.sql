-- What the triggers on alerts, trades, learning entries and lineage keep for themselves.

CREATE TABLE _tidemark.armed_alerts (
    armed_id bigint GENERATED ALWAYS AS IDENTITY NOT NULL,
    asset_id uuid NOT NULL,
    figure text COLLATE "C" NOT NULL,
    waits_for_rise boolean NOT NULL,
    reach double precision NOT NULL,
    target numeric NOT NULL,
    condition public.alert_condition NOT NULL,
    user_id uuid,
    alert_id bigint,
    item_id uuid,

    CONSTRAINT armed_alerts_pkey PRIMARY KEY (armed_id),
    CONSTRAINT armed_alerts_alert_id_key UNIQUE (alert_id),
    CONSTRAINT armed_alerts_item_id_condition_key UNIQUE (item_id, condition),
    CONSTRAINT armed_alerts_alert_id_fkey FOREIGN KEY (alert_id)
    REFERENCES public.alerts (alert_id) ON UPDATE CASCADE ON DELETE CASCADE,
    CONSTRAINT armed_alerts_item_id_fkey FOREIGN KEY (item_id)
    REFERENCES public.watchlist_items (item_id) ON DELETE CASCADE,
    CONSTRAINT armed_alerts_is_of_one_thing CHECK (num_nonnulls(alert_id, item_id) = 1)
);
CREATE INDEX armed_alerts_reach_idx ON _tidemark.armed_alerts (asset_id, figure, waits_for_rise, reach);
COMMENT ON INDEX _tidemark.armed_alerts_reach_idx IS 'What a figure reaches when it rises or falls to a value.';
COMMENT ON TABLE _tidemark.armed_alerts IS
'What can still fire: alerts that are active and have not, and prices of watchlist items. Derived from those tables.';
COMMENT ON COLUMN _tidemark.armed_alerts.armed_id IS 'Identity of the row.';
COMMENT ON COLUMN _tidemark.armed_alerts.asset_id IS 'Asset that is watched.';
COMMENT ON COLUMN _tidemark.armed_alerts.figure IS
'What of it is watched: price, prediction, or indicator and a name or family after a space.';
COMMENT ON COLUMN _tidemark.armed_alerts.waits_for_rise IS 'Whether the figure has to rise to fire it, or to fall.';
COMMENT ON COLUMN _tidemark.armed_alerts.reach IS
'The target; -infinity where a crossing does not know yet from which side, so that any figure reaches it.';
COMMENT ON COLUMN _tidemark.armed_alerts.target IS 'The target as the user wrote it.';
COMMENT ON COLUMN _tidemark.armed_alerts.condition IS 'above and below have to be passed, cross only reached.';
COMMENT ON COLUMN _tidemark.armed_alerts.user_id IS 'Owner of the alert, whose own predictions count; NULL: an item.';
COMMENT ON COLUMN _tidemark.armed_alerts.alert_id IS 'The alert.';
COMMENT ON COLUMN _tidemark.armed_alerts.item_id IS 'The watchlist item.';

CREATE TABLE _tidemark.stale_rules (
    transaction_id xid8 NOT NULL DEFAULT pg_current_xact_id(),
    rule_id uuid NOT NULL,

    CONSTRAINT stale_rules_pkey PRIMARY KEY (transaction_id, rule_id)
);
COMMENT ON TABLE _tidemark.stale_rules IS
'Strategy rules whose trades a running transaction changed; emptied when it commits.';
COMMENT ON COLUMN _tidemark.stale_rules.transaction_id IS 'The transaction.';
COMMENT ON COLUMN _tidemark.stale_rules.rule_id IS 'The rule (strategy_rules.rule_id).';

CREATE TABLE _tidemark.lineage_turn (
    is_only boolean NOT NULL DEFAULT true,
    turn bigint NOT NULL DEFAULT 0,

    CONSTRAINT lineage_turn_pkey PRIMARY KEY (is_only),
    CONSTRAINT lineage_turn_is_one_row CHECK (is_only)
);
COMMENT ON TABLE _tidemark.lineage_turn IS
'One row that every writer of lineage updates, so that two of them cannot close a cycle between them.';
COMMENT ON COLUMN _tidemark.lineage_turn.is_only IS 'True: there is one row.';
COMMENT ON COLUMN _tidemark.lineage_turn.turn IS 'Statements that wrote lineage.';
INSERT INTO _tidemark.lineage_turn DEFAULT VALUES;

CREATE INDEX learning_entries_supporting_trades_idx ON public.learning_entries USING gin (supporting_trades);
COMMENT ON INDEX public.learning_entries_supporting_trades_idx IS 'Insights that rest on a trade.';
