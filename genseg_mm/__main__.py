"""``python -m genseg_mm`` is the command ``genseg``."""

from genseg_mm.command import main

if __name__ == '__main__':
    main()
