"""Running of benchmark suites: which model is measured on what, and where every number comes from."""
