"""Runs of published drag benchmarks: their data sets, what is measured, and the report."""
