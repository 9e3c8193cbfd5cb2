"""What a model costs: parameters, FLOPs, time and memory of its parts, for get_flops.py and profile_evaluation.py."""
