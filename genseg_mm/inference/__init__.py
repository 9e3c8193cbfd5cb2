"""What ``genseg_mm.inferencers`` is made of: reading of images and prompts, building of models, drawing, writing."""
