"""Boundaries: the BSDS500 benchmark."""
