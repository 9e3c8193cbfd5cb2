"""Parts of measure_families.py: what is measured, memory of activations, tables."""
