"""Reading of training logs, for analyze_logs.py."""
