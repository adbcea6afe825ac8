"""How fast the product is, side by side with what it is measured against: ``python -m tests.bench``."""
