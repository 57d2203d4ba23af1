"""Boards: how they are reached (transport), talked to (session), kept (registry), shared (pool) and timed honestly
(protocol of measurement, statistics, store)."""
