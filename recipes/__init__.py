"""The recipes: one folder each, each a package; `python -m recipes list` shows them."""
