"""Campaigns with several workers and a PostgreSQL: pauses, kills, outages, and how instances are shared."""
