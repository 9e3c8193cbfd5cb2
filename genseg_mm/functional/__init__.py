"""The mathematics of both papers: tensors in, tensors out; torch only."""
