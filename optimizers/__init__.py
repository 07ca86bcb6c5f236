"""Search strategies: `base.py` holds what one is, then one strategy per file."""
