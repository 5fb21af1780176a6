"""``python -m contrastloss.testing stubs`` writes ``contrastloss/functional.pyi``."""

import sys
from pathlib import Path

from . import stubs

if sys.argv[1:] != ["stubs"]:
    sys.exit("usage: python -m contrastloss.testing stubs")
Path(__file__).parent.with_name("functional.pyi").write_text(stubs())
