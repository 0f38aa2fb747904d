"""Alerts: one message when a run ends or stalls, or the queue is empty."""
