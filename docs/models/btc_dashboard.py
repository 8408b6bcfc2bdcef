"""The BTC dashboard's models as they run on Tidemark: search_path = btc_dashboard, public. Checked by a test."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, DateTime, Float, ForeignKey, Integer, SmallInteger, String, Text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    type_annotation_map = {
        datetime: DateTime(timezone=True), float: Float, dict[str, Any]: JSONB, list[str]: ARRAY(Text),
    }


class Source(Base):
    __tablename__ = "sources"

    source_id: Mapped[int] = mapped_column(Integer, primary_key=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    display_name: Mapped[str | None] = mapped_column(String(200))
    data_type: Mapped[str] = mapped_column(String(20))
    provider: Mapped[str | None] = mapped_column(String(100))
    status: Mapped[str] = mapped_column(String(20), default="active")
    config: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime | None]
    updated_at: Mapped[datetime | None]
    rows: Mapped[list[TimeseriesData]] = relationship(back_populates="source")


class TimeseriesData(Base):
    __tablename__ = "timeseries_data"

    source_id: Mapped[int] = mapped_column(ForeignKey("sources.source_id"), primary_key=True)
    timestamp: Mapped[datetime] = mapped_column(primary_key=True)
    value: Mapped[float | None]
    open: Mapped[float | None]
    high: Mapped[float | None]
    low: Mapped[float | None]
    close: Mapped[float | None]
    volume: Mapped[float | None]
    quality_score: Mapped[int | None] = mapped_column(SmallInteger)
    is_anomaly: Mapped[bool | None]
    extra: Mapped[dict[str, Any] | None] = mapped_column("metadata")
    source: Mapped[Source] = relationship(back_populates="rows")


class Anomaly(Base):
    __tablename__ = "anomalies"

    anomaly_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    source_id: Mapped[int | None] = mapped_column(ForeignKey("sources.source_id"))
    timestamp: Mapped[datetime]
    severity: Mapped[str] = mapped_column(String(20))
    z_score: Mapped[float | None]
    status: Mapped[str] = mapped_column(String(20))
    notes: Mapped[str | None] = mapped_column(Text)


class AuditLog(Base):
    __tablename__ = "audit_log"

    audit_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    table_name: Mapped[str] = mapped_column(Text)
    operation: Mapped[str] = mapped_column(String(20))
    old_values: Mapped[dict[str, Any] | None]
    new_values: Mapped[dict[str, Any] | None]
    changed_fields: Mapped[list[str] | None]
    changed_by: Mapped[str | None] = mapped_column(Text)
    changed_at: Mapped[datetime]
    reason: Mapped[str | None] = mapped_column(Text)


class MLModel(Base):
    __tablename__ = "ml_models"

    model_id: Mapped[int] = mapped_column(Integer, primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    version: Mapped[str | None] = mapped_column(String(20))
    model_type: Mapped[str] = mapped_column(String(50))
    accuracy: Mapped[float | None]
    parameters: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime | None]
