"""``python -m contrastloss.testing stubs`` writes ``contrastloss/functional.py`` and its stubs."""

import sys
from pathlib import Path

from .stubs import functions, stubs

if sys.argv[1:] != ["stubs"]:
    sys.exit("usage: python -m contrastloss.testing stubs")
module = Path(__file__).parent.with_name("functional.py")
module.write_text(functions())
module.with_suffix(".pyi").write_text(stubs())
