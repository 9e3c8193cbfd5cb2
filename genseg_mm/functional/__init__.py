"""The mathematics of both papers: tensors in, tensors out; torch alone, but for SciPy's connected components."""
