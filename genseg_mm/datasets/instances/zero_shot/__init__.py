"""Sets that gen2seg is evaluated on and never trained on."""
