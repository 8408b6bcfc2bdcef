"""Buddy AI's models as they run on Tidemark: search_path = buddy_ai, public. Checked against the database by a test."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Any

from sqlalchemy import DateTime, Enum, Float, ForeignKey, Integer, String, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    type_annotation_map = {datetime: DateTime(timezone=True), float: Float, dict[str, Any]: JSONB, list[str]: JSONB}


class UserRole(enum.Enum):
    USER = "USER"
    PREMIUM = "PREMIUM"
    ADMIN = "ADMIN"


class Market(enum.Enum):
    FOREX = "FOREX"
    CRYPTO = "CRYPTO"
    STOCK = "STOCK"


class ModelType(enum.Enum):
    TFT = "TFT"
    LSTM = "LSTM"
    ENSEMBLE = "ENSEMBLE"
    PROPHET = "PROPHET"
    MULTIMODAL = "MULTIMODAL"


class Direction(enum.Enum):
    BUY = "BUY"
    SELL = "SELL"
    HOLD = "HOLD"
    STRONG_BUY = "STRONG_BUY"
    STRONG_SELL = "STRONG_SELL"


class User(Base):
    __tablename__ = "users"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    email: Mapped[str] = mapped_column(String(255), unique=True)
    username: Mapped[str] = mapped_column(String(50), unique=True)
    hashed_password: Mapped[str | None] = mapped_column(String(255))
    full_name: Mapped[str | None] = mapped_column(String(255))
    role: Mapped[UserRole] = mapped_column(Enum(UserRole), default=UserRole.USER)
    is_active: Mapped[bool] = mapped_column(default=True)
    is_verified: Mapped[bool] = mapped_column(default=False)
    preferred_currency: Mapped[str | None] = mapped_column(String(10))
    preferred_theme: Mapped[str | None] = mapped_column(String(20))
    enable_notifications: Mapped[bool | None]
    created_at: Mapped[datetime | None]
    updated_at: Mapped[datetime | None]
    last_login: Mapped[datetime | None]
    positions: Mapped[list[Position]] = relationship(back_populates="user")
    alerts: Mapped[list[Alert]] = relationship(back_populates="user")


class MarketData(Base):
    __tablename__ = "market_data"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    symbol: Mapped[str] = mapped_column(String(20))
    market: Mapped[Market] = mapped_column(Enum(Market))
    price: Mapped[float | None]
    open_price: Mapped[float | None]
    high: Mapped[float | None]
    low: Mapped[float | None]
    close: Mapped[float | None]
    volume: Mapped[float | None]
    change_24h: Mapped[float | None]
    change_percent_24h: Mapped[float | None]
    timestamp: Mapped[datetime | None]


class OHLCVData(Base):
    __tablename__ = "ohlcv_data"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    symbol: Mapped[str] = mapped_column(String(20))
    market: Mapped[Market] = mapped_column(Enum(Market))
    timeframe: Mapped[str] = mapped_column(String(5))
    timestamp: Mapped[datetime]
    open: Mapped[float | None]
    high: Mapped[float | None]
    low: Mapped[float | None]
    close: Mapped[float | None]
    volume: Mapped[float | None]


class Prediction(Base):
    __tablename__ = "predictions"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    symbol: Mapped[str] = mapped_column(String(20))
    market: Mapped[Market] = mapped_column(Enum(Market))
    model: Mapped[ModelType] = mapped_column(Enum(ModelType))
    current_price: Mapped[float]
    predicted_price: Mapped[float]
    direction: Mapped[Direction] = mapped_column(Enum(Direction))
    confidence: Mapped[float]
    target_price: Mapped[float | None]
    stop_loss: Mapped[float | None]
    take_profit: Mapped[float | None]
    timeframe: Mapped[str] = mapped_column(String(5))
    horizon_hours: Mapped[int]
    features_used: Mapped[list[str] | None]
    model_version: Mapped[str | None] = mapped_column(String(50))
    actual_price: Mapped[float | None]
    accuracy_score: Mapped[float | None]
    created_at: Mapped[datetime | None]
    prediction_for: Mapped[datetime | None]
    evaluated_at: Mapped[datetime | None]


class Watchlist(Base):
    __tablename__ = "watchlists"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    symbol: Mapped[str] = mapped_column(String(20))
    market: Mapped[Market] = mapped_column(Enum(Market))
    notes: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime | None]


class Alert(Base):
    __tablename__ = "alerts"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    symbol: Mapped[str] = mapped_column(String(20))
    alert_type: Mapped[str] = mapped_column(String(20), default="price")
    condition: Mapped[str] = mapped_column(String(20))
    target_value: Mapped[float]
    is_active: Mapped[bool] = mapped_column(default=True)
    is_triggered: Mapped[bool] = mapped_column(default=False)
    message: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime | None]
    triggered_at: Mapped[datetime | None]
    user: Mapped[User] = relationship(back_populates="alerts")


class Position(Base):
    __tablename__ = "positions"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    symbol: Mapped[str] = mapped_column(String(20))
    market: Mapped[Market] = mapped_column(Enum(Market))
    side: Mapped[str] = mapped_column(String(10))
    entry_price: Mapped[float]
    current_price: Mapped[float | None]
    exit_price: Mapped[float | None]
    quantity: Mapped[float]
    pnl: Mapped[float | None]
    pnl_percent: Mapped[float | None]
    is_open: Mapped[bool] = mapped_column(default=True)
    opened_at: Mapped[datetime | None]
    closed_at: Mapped[datetime | None]
    user: Mapped[User] = relationship(back_populates="positions")
