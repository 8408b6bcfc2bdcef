"""Enumerated types."""

from yoyo import step

from tidemark.migrations import state

__depends__ = {"005_roles"}

steps = [step(state(__file__), """
DROP TYPE public.lineage_kind;
DROP TYPE public.strategy_source_type;
DROP TYPE public.trade_outcome;
DROP TYPE public.trade_status;
DROP TYPE public.trade_type;
DROP TYPE public.position_side;
DROP TYPE public.notification_type;
DROP TYPE public.alert_condition;
DROP TYPE public.alert_type;
DROP TYPE public.user_role;
DROP TYPE public.ingestion_status;
DROP TYPE public.ingestion_kind;
DROP TYPE public.audit_operation;
DROP TYPE public.anomaly_status;
DROP TYPE public.anomaly_kind;
DROP TYPE public.anomaly_severity;
DROP TYPE public.quality_penalty;
DROP TYPE public.rule_severity;
DROP TYPE public.rule_type;
DROP TYPE public.change_transform;
DROP TYPE public.model_type;
DROP TYPE public.signal_type;
DROP TYPE public.indicator_type;
DROP TYPE public.ingest_mode;
DROP TYPE public.calendar_origin;
DROP TYPE public.source_status;
DROP TYPE public.source_data_type;
DROP TYPE public.candle_interval;
DROP TYPE public.asset_type;
""")]
