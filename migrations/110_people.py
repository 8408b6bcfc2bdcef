"""Users, watchlists, alerts, notifications."""

from yoyo import step

from tidemark.migrations import state

__depends__ = {"100_reference"}

steps = [step(state(__file__), """
DROP TABLE public.notifications;
DROP TABLE public.alerts;
DROP TABLE public.watchlist_items;
DROP TABLE public.watchlists;
DROP TABLE public.users;
""")]
