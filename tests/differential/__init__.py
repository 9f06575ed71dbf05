"""Keras programs drawn by chance, run with `keras.Model.fit` and with `tfmb.fit`, and compared: see tests/README.md.

A program is plain data (`programs.draw`), which is written as Keras code (`code.write`); that very code is run, by each
side in a process that was forked for it (`server`, `running`), and what it left is compared (`judging`).
"""

import sys
from pathlib import Path

# Under pytest it is there; `python -m tests.differential` has no other way to it.
sys.path.append(str(Path(__file__).parents[1] / "helpers"))
