"""Search spaces: pure Python and NumPy, one file per space."""
