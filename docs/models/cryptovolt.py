"""CryptoVolt's models as they run on Tidemark: search_path = cryptovolt, public. Checked by a test.

Its instants are naive and in UTC.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Float, ForeignKey, Integer, String, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    type_annotation_map = {float: Float, dict[str, Any]: JSONB}


class User(Base):
    __tablename__ = "users"

    user_id: Mapped[int] = mapped_column(Integer, primary_key=True)
    username: Mapped[str] = mapped_column(String(50), unique=True)
    email: Mapped[str] = mapped_column(String(100), unique=True)
    password_hash: Mapped[str] = mapped_column(String(255))
    is_active: Mapped[bool | None] = mapped_column(default=True)
    created_at: Mapped[datetime | None] = mapped_column(default=datetime.utcnow)
    updated_at: Mapped[datetime | None] = mapped_column(default=datetime.utcnow, onupdate=datetime.utcnow)
    strategies: Mapped[list[TradingStrategy]] = relationship(back_populates="user")


class TradingStrategy(Base):
    __tablename__ = "trading_strategies"

    strategy_id: Mapped[int] = mapped_column(Integer, primary_key=True)
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.user_id"))
    name: Mapped[str] = mapped_column(String(100))
    description: Mapped[str | None] = mapped_column(Text)
    parameters: Mapped[dict[str, Any] | None]
    is_active: Mapped[bool | None] = mapped_column(default=False)
    created_at: Mapped[datetime | None]
    updated_at: Mapped[datetime | None]
    user: Mapped[User | None] = relationship(back_populates="strategies")


class MarketData(Base):
    __tablename__ = "market_data"

    data_id: Mapped[int] = mapped_column(Integer, primary_key=True)
    symbol: Mapped[str] = mapped_column(String(20))
    timestamp: Mapped[datetime]
    open_price: Mapped[float | None]
    high_price: Mapped[float | None]
    low_price: Mapped[float | None]
    close_price: Mapped[float | None]
    volume: Mapped[float | None]
    source: Mapped[str | None] = mapped_column(String(50))
    created_at: Mapped[datetime | None]


class SentimentData(Base):
    __tablename__ = "sentiment_data"

    sentiment_id: Mapped[int] = mapped_column(Integer, primary_key=True)
    symbol: Mapped[str] = mapped_column(String(20))
    source: Mapped[str] = mapped_column(String(50))
    text: Mapped[str | None] = mapped_column(Text)
    sentiment_score: Mapped[float | None]
    timestamp: Mapped[datetime | None]
    extra_data: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime | None]


class Model(Base):
    __tablename__ = "models"

    model_id: Mapped[int] = mapped_column(Integer, primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    model_type: Mapped[str] = mapped_column(String(50))
    version: Mapped[str | None] = mapped_column(String(20))
    accuracy: Mapped[float | None]
    precision: Mapped[float | None]
    recall: Mapped[float | None]
    auc: Mapped[float | None]
    trained_on: Mapped[datetime | None]
    extra_data: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime | None]


class Signal(Base):
    __tablename__ = "signals"

    signal_id: Mapped[int] = mapped_column(Integer, primary_key=True)
    strategy_id: Mapped[int | None] = mapped_column(ForeignKey("trading_strategies.strategy_id"))
    model_id: Mapped[int | None] = mapped_column(ForeignKey("models.model_id"))
    symbol: Mapped[str] = mapped_column(String(20))
    signal_type: Mapped[str] = mapped_column(String(20))
    confidence: Mapped[float | None]
    timestamp: Mapped[datetime | None]
    extra_data: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime | None]


class Trade(Base):
    __tablename__ = "trades"

    trade_id: Mapped[int] = mapped_column(Integer, primary_key=True)
    signal_id: Mapped[int | None] = mapped_column(ForeignKey("signals.signal_id"))
    symbol: Mapped[str] = mapped_column(String(20))
    trade_type: Mapped[str] = mapped_column(String(10))
    price: Mapped[float | None]
    quantity: Mapped[float]
    status: Mapped[str] = mapped_column(String(20), default="PENDING")
    is_paper_trade: Mapped[bool | None] = mapped_column(default=True)
    pnl: Mapped[float | None]
    timestamp: Mapped[datetime | None]
    created_at: Mapped[datetime | None]


class Alert(Base):
    __tablename__ = "alerts"

    alert_id: Mapped[int] = mapped_column(Integer, primary_key=True)
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.user_id"))
    alert_type: Mapped[str] = mapped_column(String(50))
    message: Mapped[str] = mapped_column(Text)
    is_read: Mapped[bool | None] = mapped_column(default=False)
    timestamp: Mapped[datetime | None]
    created_at: Mapped[datetime | None]
