"""Runs the Python of pages, each page as one program. It needs only the package.

python pages.py PAGE...
"""

import re
import sys
from pathlib import Path


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def run(page):
    # lines are numbered as in the page
    text = page.read_text()
    code = re.sub(r"^```python\n(.*?)^```$", lambda m: f"\0\n{m[1]}\0", text, flags=re.M | re.S)
    parts = code.split("\0")
    lines = "".join(p if k % 2 else "\n" * p.count("\n") for k, p in enumerate(parts))
    exec(compile(lines, str(page), "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    for name in sys.argv[1:]:
        run(Path(name))
        print(f"{name}: runs")
