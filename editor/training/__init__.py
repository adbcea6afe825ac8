"""How the built-in model was made; anybody can make it again: ``python -m editor.training --help``."""
