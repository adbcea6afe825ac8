"""How the built-in model was made; anybody can make it again: ``python -m livedrag.editor.training --help``."""
