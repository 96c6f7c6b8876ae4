"""Reference pages that are made from code; `scripts/reference.py` writes them."""
