"""Trading Manager's models as they run on Tidemark: search_path = trading_manager, public. Checked by a test."""

from __future__ import annotations

import uuid
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import BigInteger, DateTime, Enum, Float, ForeignKey, Numeric, String, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    type_annotation_map = {
        datetime: DateTime(timezone=True), float: Float, Decimal: Numeric, dict[str, Any]: JSONB, list[Any]: JSONB,
    }


ASSET_TYPE = Enum("stock", "etf", "crypto", "forex", "commodity", "index", name="asset_type")
# Text, because a Python enumeration tells 1m from 1M only by the case.
INTERVAL = String(3)
INDICATOR_TYPE = Enum("sma", "ema", "rsi", "macd", "bbands", "atr", "obv", "stoch", "adx", "cci", name="indicator_type")
SIGNAL_TYPE = Enum("strong_sell", "sell", "hold", "buy", "strong_buy", name="signal_type")


class User(Base):
    __tablename__ = "users"

    id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True, default=uuid.uuid4)
    username: Mapped[str] = mapped_column(String(50), unique=True)
    email: Mapped[str] = mapped_column(String(255), unique=True)
    password_hash: Mapped[str | None] = mapped_column(String(255))
    is_active: Mapped[bool] = mapped_column(default=True)
    is_admin: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime | None]
    updated_at: Mapped[datetime | None]
    last_login: Mapped[datetime | None]
    watchlists: Mapped[list[Watchlist]] = relationship(back_populates="user")


class Asset(Base):
    __tablename__ = "assets"

    id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True, default=uuid.uuid4)
    symbol: Mapped[str] = mapped_column(String(20))
    name: Mapped[str | None] = mapped_column(String(255))
    asset_type: Mapped[str] = mapped_column(ASSET_TYPE)
    exchange: Mapped[str | None] = mapped_column(String(50))
    sector: Mapped[str | None] = mapped_column(String(100))
    industry: Mapped[str | None] = mapped_column(String(100))
    created_at: Mapped[datetime | None]
    updated_at: Mapped[datetime | None]


class Watchlist(Base):
    __tablename__ = "watchlists"

    id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True, default=uuid.uuid4)
    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id"))
    name: Mapped[str] = mapped_column(String(100))
    description: Mapped[str | None] = mapped_column(Text)
    color: Mapped[str | None] = mapped_column(String(20))
    icon: Mapped[str | None] = mapped_column(String(50))
    is_default: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime | None]
    updated_at: Mapped[datetime | None]
    user: Mapped[User] = relationship(back_populates="watchlists")
    items: Mapped[list[WatchlistItem]] = relationship(back_populates="watchlist", cascade="all, delete-orphan")


class WatchlistItem(Base):
    __tablename__ = "watchlist_items"

    id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True, default=uuid.uuid4)
    watchlist_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("watchlists.id"))
    asset_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("assets.id"))
    position: Mapped[int] = mapped_column(default=0)
    notes: Mapped[str | None] = mapped_column(Text)
    price_alert_high: Mapped[Decimal | None]
    price_alert_low: Mapped[Decimal | None]
    created_at: Mapped[datetime | None]
    updated_at: Mapped[datetime | None]
    watchlist: Mapped[Watchlist] = relationship(back_populates="items")
    asset: Mapped[Asset] = relationship()


class Candle(Base):
    """public.candles itself; of its columns those that the document has. created_at is ingested_at there."""

    __tablename__ = "candles"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    asset_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("assets.id"))
    ts: Mapped[datetime]
    interval: Mapped[str] = mapped_column(INTERVAL)
    open: Mapped[float | None]
    high: Mapped[float | None]
    low: Mapped[float | None]
    close: Mapped[float | None]
    volume: Mapped[float | None]
    trades: Mapped[int | None] = mapped_column(BigInteger)
    vwap: Mapped[float | None]
    created_at: Mapped[datetime | None] = mapped_column("ingested_at")


class Indicator(Base):
    __tablename__ = "indicators"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    asset_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("assets.id"))
    ts: Mapped[datetime]
    indicator_type: Mapped[str] = mapped_column(INDICATOR_TYPE)
    name: Mapped[str] = mapped_column(String(50))
    value: Mapped[float | None]
    value2: Mapped[float | None]
    value3: Mapped[float | None]
    parameters: Mapped[dict[str, Any] | None]
    timeframe: Mapped[str] = mapped_column(INTERVAL)
    computed_at: Mapped[datetime | None]


class Signal(Base):
    __tablename__ = "signals"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    asset_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("assets.id"))
    ts: Mapped[datetime]
    signal_type: Mapped[str] = mapped_column(SIGNAL_TYPE)
    strength: Mapped[float | None]
    confidence: Mapped[float | None]
    price: Mapped[Decimal | None]
    target_price: Mapped[Decimal | None]
    stop_loss: Mapped[Decimal | None]
    strategy: Mapped[str | None] = mapped_column(String(100))
    rationale: Mapped[str | None] = mapped_column(Text)
    indicators_used: Mapped[list[Any] | None]
    timeframe: Mapped[str | None] = mapped_column(INTERVAL)
    is_active: Mapped[bool | None] = mapped_column(default=True)
    generated_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
