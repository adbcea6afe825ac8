"""Credentials and rate limits."""
