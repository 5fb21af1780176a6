"""The site that ``make docs`` has built (``--site docs/site``): it is complete, needs nothing from
the network, and works in a browser. Sphinx itself has checked links and anchors."""

import html
import http.server
import json
import re
import shutil
import subprocess
import threading
import zlib
from functools import partial
from pathlib import Path
from urllib.parse import unquote

import pytest

TESTS = Path(__file__).parent
RECORD = (TESTS / "api.txt").read_text()
#: opens pages of the site in a frame, and says what is there once they are loaded
PROBE = (TESTS / "site_probe.html").read_text()
BROWSERS = "chromium", "chromium-browser", "google-chrome"


@pytest.fixture(scope="module")
def site(request):
    folder = request.config.getoption("--site")
    if not folder:
        pytest.skip("--site was not given: `make docs` builds the site and runs this")
    return Path(folder).resolve()


@pytest.fixture(scope="module")
def pages(site):
    return {str(page.relative_to(site)): page.read_text() for page in site.rglob("*.html")}


def test_every_public_name_has_an_entry(site):
    packed = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    has = {line.split(" ")[0] for line in zlib.decompress(packed).decode().splitlines()}
    public = re.findall(r"^(?:class )?(contrastloss\.[\w.]+)(?=[(:]|$)", RECORD, re.MULTILINE)
    assert len(public) > 300
    assert [name for name in public if name not in has and not is_module(name)] == []


def is_module(name):
    return f"{name}: module" in RECORD


def test_entries_have_formula_options_and_shapes(pages):
    page = pages["api/losses/CLIPLoss.html"]
    for words in ("<math", "label_smoothing", "strategy", "Shape", "x_negatives", "Radford"):
        assert words in page, words
    # what continues the entry of a shape is no entry
    assert "<strong>offset" not in page
    assert "float | Tensor" in re.sub("<.*?>", "", page)  # the type of an option, not its bounds
    # options that a base explains
    assert "<strong>group</strong>" in page


def test_links_lead_to_pages_and_places(site, pages):
    """Also those of the theme, and those that are written as addresses."""
    places = {name: set(re.findall(r'\bid="([^"]+)"', page)) for name, page in pages.items()}
    dead = []
    for name, page in pages.items():
        if name.startswith("_modules"):
            continue
        for link in set(re.findall(r'<a\b[^>]*?\bhref="([^"]+)"', page)):
            if re.match(r"\w+:", link):
                continue
            file, _, place = html.unescape(link).partition("#")
            target = (site / name).parent.joinpath(unquote(file)).resolve() if file else site / name
            known = places.get(str(target.relative_to(site)))
            if not target.exists() or (place and known is not None and place not in known):
                dead.append((name, link))
    assert dead == []


def test_nothing_is_loaded_from_the_network(pages):
    for name, page in pages.items():
        loaded = re.findall(r"<(?:script|img|iframe)\b[^>]*?\bsrc=\"([^\"]+)", page)
        loaded += re.findall(r"<link\b[^>]*?rel=\"stylesheet\"[^>]*?href=\"([^\"]+)", page)
        assert loaded, name
        assert [url for url in loaded if re.match(r"(?:\w+:)?//", url)] == [], name


def test_formulas_are_mathml_without_leftovers(pages):
    formulas = [
        f for page in pages.values() for f in re.findall(r"<math.*?</math>", page, re.DOTALL)
    ]
    assert len(formulas) > 300
    assert [f for f in formulas if re.search(r"\\|merror|<mi>&<", f)] == []


class Quiet(http.server.SimpleHTTPRequestHandler):
    probe = ""

    def do_GET(self):
        if self.path != "/probe.html":
            return super().do_GET()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.probe.encode())

    def log_message(self, *args):
        pass


@pytest.fixture
def browser(request):
    if wanted := request.config.getoption("--browser"):
        assert shutil.which(wanted), f"--browser {wanted}: there is none on this machine"
        return wanted
    found = [name for name in BROWSERS if shutil.which(name)]
    return found[0] if found else pytest.skip(f"none of {', '.join(BROWSERS)} on this machine")


@pytest.mark.parametrize("width", [1200, 400])
def test_it_works_in_a_browser(site, browser, tmp_path, width):
    wanted = ["index.html", "how.html", "losses.html", "api/losses/SupConLoss.html"]
    probe = PROBE.replace("PAGES", json.dumps(wanted)).replace("WIDTH", str(width))
    handler = partial(type("Handler", (Quiet,), {"probe": probe}), directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            url = f"http://127.0.0.1:{server.server_port}/probe.html"
            options = [
                "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
                f"--user-data-dir={tmp_path}", "--virtual-time-budget=60000", "--dump-dom",
            ]  # fmt: skip
            done = subprocess.run(
                [browser, *options, url], capture_output=True, text=True, timeout=200
            )
        finally:
            server.shutdown()
    found = json.loads(re.search(r'<pre id="found">(\{.*?\})</pre>', done.stdout, re.DOTALL)[1])
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert [line for line in said if "source: chrome://" not in line] == []  # the browser's own
    assert any("SigLIPLoss" in link for link in found.pop("search"))
    for page, seen in found.items():
        assert seen["broken"] == [], page
        assert seen["wide"] <= 0, page
        assert all(width > 4 and height > 4 for width, height in seen["formulas"]), page
    assert len(found["losses.html"]["formulas"]) > 60
    assert found["index.html"]["copied"]
