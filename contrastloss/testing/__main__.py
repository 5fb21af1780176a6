"""``python -m contrastloss.testing write`` writes ``contrastloss/functional.py``, and the losses'
docstrings anew, whose section on shared options is made."""

import sys
from pathlib import Path

from .docstrings import sources
from .functions import functions

if sys.argv[1:] != ["write"]:
    sys.exit("usage: python -m contrastloss.testing write")
texts = sources() | {Path(__file__).parent.with_name("functional.py"): functions()}
for path, text in texts.items():
    path.write_text(text)
