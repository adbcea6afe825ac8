"""How the built-in model was made. ``python -m livedrag.editor.training --help`` says how to make it again."""
