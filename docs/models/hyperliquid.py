"""The Hyperliquid bot's models as they run on Tidemark: search_path = hyperliquid, public. Checked by a test."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, DateTime, Float, ForeignKey, String, Text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    type_annotation_map = {
        datetime: DateTime(timezone=True), float: Float, dict[str, Any]: JSONB, list[Any]: JSONB,
        list[str]: ARRAY(String),
    }


def new_key() -> str:
    return str(uuid.uuid4())


class StrategyRule(Base):
    __tablename__ = "strategy_rules"

    id: Mapped[str] = mapped_column(String, primary_key=True, default=new_key)
    name: Mapped[str] = mapped_column(String)
    source_type: Mapped[str | None] = mapped_column(String)
    source_ref: Mapped[str | None] = mapped_column(String)
    entry_type: Mapped[str] = mapped_column(String)
    conditions: Mapped[list[Any] | None]
    confluence_required: Mapped[list[Any] | None]
    risk_params: Mapped[dict[str, Any] | None]
    confidence: Mapped[float | None]
    trade_count: Mapped[int | None]
    win_rate: Mapped[float | None]
    avg_r_multiple: Mapped[float | None]
    trades: Mapped[list[TradeRecord]] = relationship(back_populates="strategy_rule")


class TradeRecord(Base):
    __tablename__ = "trade_records"

    id: Mapped[str] = mapped_column(String, primary_key=True, default=new_key)
    strategy_rule_id: Mapped[str | None] = mapped_column(ForeignKey("strategy_rules.id"))
    asset: Mapped[str] = mapped_column(String)
    direction: Mapped[str] = mapped_column(String)
    entry_price: Mapped[float]
    exit_price: Mapped[float | None]
    entry_time: Mapped[datetime | None]
    exit_time: Mapped[datetime | None]
    outcome: Mapped[str | None] = mapped_column(String)
    pnl_r: Mapped[float | None]
    pnl_usd: Mapped[float | None]
    reasoning: Mapped[str | None] = mapped_column(Text)
    confidence: Mapped[float | None]
    is_backtest: Mapped[bool | None] = mapped_column(default=False)
    strategy_rule: Mapped[StrategyRule | None] = relationship(back_populates="trades")


class LearningEntry(Base):
    __tablename__ = "learning_entries"

    id: Mapped[str] = mapped_column(String, primary_key=True, default=new_key)
    strategy_rule_id: Mapped[str | None] = mapped_column(ForeignKey("strategy_rules.id"))
    insight: Mapped[str] = mapped_column(Text)
    supporting_trades: Mapped[list[str] | None]
    confidence: Mapped[float | None]
    impact_type: Mapped[str | None] = mapped_column(String)
    market_conditions: Mapped[dict[str, Any] | None]
    validation_count: Mapped[int | None]


class CandleData(Base):
    __tablename__ = "candle_data"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    asset: Mapped[str] = mapped_column(String)
    timeframe: Mapped[str] = mapped_column(String)
    timestamp: Mapped[datetime]
    open: Mapped[float | None]
    high: Mapped[float | None]
    low: Mapped[float | None]
    close: Mapped[float | None]
    volume: Mapped[float | None]
