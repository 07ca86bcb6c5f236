"""Readers of the official files: one file per format, and the restricted unpickler that they share."""
