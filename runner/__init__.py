"""Tidemark's runner: applies the SQL under `schema/` and looks after the database it makes."""
