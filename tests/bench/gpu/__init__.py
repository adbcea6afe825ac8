"""Speed on one GPU; see `tests.bench.gpu.__main__`."""
