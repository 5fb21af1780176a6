"""The import rules between layers, and what importing the package needs."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import contrastloss

PACKAGE = Path(contrastloss.__file__).parent
ROOT = PACKAGE.parent

#: for each layer, the layers that it may import: only lower ones
ARROWS = {
    "channel": set(),
    "options": set(),
    "program": {"channel", "options"},
    "backends": {"channel", "program"},
    "ops": {"backends", "channel", "options", "program"},
    "inputs": {"ops", "options"},
    "distributed": {"ops", "backends", "channel", "program"},
    "memory": {"ops", "distributed", "options"},
    "losses": {"memory", "ops", "distributed", "sorting", "channel", "options", "inputs"},
    "mining": {"ops", "channel", "options", "inputs", "arguments"},
    "metrics": {"ops", "channel", "options", "inputs"},
    "monitor": {"metrics", "options", "inputs"},
    "plots": {"metrics"},
    "mixing": {"ops", "channel", "options", "inputs"},
    "decoding": {"ops", "channel", "options", "inputs"},
    "sorting": {"ops", "options"},
    "functional": {"losses", "memory"},
    "arguments": set(),
    "gradcache": {"options"},
    "presets": {"losses"},
    "compat": {"losses", "functional", "mining", "ops", "distributed", "channel"},
    "demo": {"losses", "functional", "backends", "arguments"},
    "info": {"backends"},
    "bench": {"losses", "backends", "testing", "arguments"},
    "tune": {"ops", "backends", "channel", "testing", "bench", "arguments"},
    "testing": {"losses", "functional", "ops", "backends", "channel", "options"},
}
#: packages that may be imported in addition to the standard library; torch needs the second, too
OUTSIDE = {"torch", "typing_extensions"}
EXTRA = {
    "backends": {"triton"},
    "demo": {"numpy", "sklearn", "matplotlib", "tqdm"},
    "bench": {"matplotlib", "pytest", "pytest_benchmark", "rich"},
    "tune": {"rich"},
    "compat": {"pytorch_metric_learning", "sentence_transformers"},
    "gradcache": {"numpy"},
    "mining": {"numpy", "pyarrow", "safetensors", "tqdm"},
    "plots": {"matplotlib"},
    "__main__": {"numpy"},
}


def modules():
    return sorted(p for p in PACKAGE.rglob("*.py") if p.name != "_build.py")


def layer(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return "package" if parts == ("__init__",) else parts[0]


def imports(path):
    """The absolute dotted names that a module imports, including lazy imports."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            yield from (f"{module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_follow_the_arrows(path):
    own = layer(path)
    for name in imports(path):
        top, *rest = name.split(".")
        if top != "contrastloss":
            allowed = OUTSIDE | EXTRA.get(own, set())
            assert top in sys.stdlib_module_names or top in allowed, f"{path.name} imports {name}"
        elif own in ARROWS and rest and rest[0] != own:
            assert rest[0] in ARROWS[own], f"{path.name}, of {own}, imports {name}"


def test_every_layer_has_its_arrows():
    assert {layer(path) for path in modules()} <= {"package", "__main__", *ARROWS}


def test_a_backend_imports_no_other():
    """Backends do not depend on each other: only `choose` imports all of them."""
    names = {"cpu", "reference", "cuda", "triton"}
    for path in (PACKAGE / "backends").rglob("*.py"):
        own = path.relative_to(PACKAGE / "backends").with_suffix("").parts[0]
        if own in names:
            ours = (n for n in imports(path) if n.startswith("contrastloss.backends."))
            found = {name.split(".")[2] for name in ours}
            assert not found & (names - {own}), f"{path} imports {found}"


def test_losses_hold_no_kernel_device_check_or_collective():
    for path in (PACKAGE / "losses").rglob("*.py"):
        text = path.read_text()
        for word in (
            "is_cuda",
            "torch.cuda",
            "torch.distributed",
            "all_reduce",
            "all_gather",
            "torch.ops.",
            "@ y",
            "@ z",
        ):
            body = text.split("def reference")[0]
            assert word not in body, f"{path.name}: {word}"


# ---- a fresh process -----------------------------------------------------------------------------

QUIET = """
import sys, warnings
warnings.simplefilter("error")
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED or name in BLOCKED:
            raise ImportError(f"{name} is blocked")
BLOCKED = set(sys.argv[1].split(","))
import torch  # before the checks: torch's own imports and warnings do not matter
torch.cuda.is_available = torch.cuda.init = lambda *a: (_ for _ in ()).throw(AssertionError("GPU"))
before = set(sys.modules)
sys.meta_path.insert(0, Blocker())
import contrastloss, contrastloss.testing
heavy = {"triton", "numpy.testing", "sklearn", "matplotlib", "torch._dynamo", "contrastloss.bench",
         "contrastloss.tune"}
assert not heavy & (set(sys.modules) - before)
loss = contrastloss.NTXentLoss()(torch.eye(3), torch.eye(3))
assert abs(loss.item() - torch.tensor(-10.0).exp().mul(4).log1p().item()) < 1e-6
print("fine")
"""


def run(code, *args, cwd=None, **env):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    command = [sys.executable, "-c", code, *args]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=120, cwd=cwd
    )


@pytest.mark.parametrize("blocked", ["triton", "contrastloss._C,contrastloss._build,triton"])
def test_imports_quietly(blocked):
    """The import gives no warning, needs no GPU, no Triton and no native module, and does not
    import optional packages."""
    done = run(QUIET, blocked)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "fine\n"
    assert done.stderr == ""


def test_works_without_the_native_library(tmp_path):
    """The package works as in a pure-Python wheel: only the sources, copied elsewhere."""
    for path in PACKAGE.rglob("*.py"):
        if path.name == "_build.py":
            continue
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text())
    done = run(QUIET, "triton", PYTHONPATH=str(tmp_path), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    code = "from contrastloss.backends import available; print(available()['cpu'])"
    done = run(code, PYTHONPATH=str(tmp_path), cwd=tmp_path)
    assert "without its native library" in done.stdout


def test_the_first_call_may_be_compiled():
    """The first call in a process can be compiled: nothing is registered or loaded lazily in a way
    that breaks the graph."""
    code = """
import torch, contrastloss
loss = torch.compile(contrastloss.CLIPLoss(), fullgraph=True, backend="aot_eager")
x = torch.eye(3, requires_grad=True)
loss(x, torch.eye(3)).backward()
assert x.grad.isfinite().all()
"""
    done = run(code)
    assert done.returncode == 0, done.stderr


TRUSTED = """
import sys, torch
REFUSED = {"socket.connect", "socket.getaddrinfo", "socket.bind", "subprocess.Popen", "os.system",
           "os.exec", "os.posix_spawn", "os.fork", "pickle.find_class", "urllib.Request"}
WRITING = {"w", "a", "x", "+"}
seen = []
def hook(event, args):
    if event in REFUSED:
        seen.append((event, args))
    elif event == "open" and isinstance(args[1], str) and WRITING & set(args[1]):
        seen.append((event, args[:2]))
sys.addaudithook(hook)
sys.dont_write_bytecode = True
import contrastloss
x = torch.randn(9, 5, requires_grad=True)
for name in ("reference", "cpu"):
    if contrastloss.backends.available()[name] is None:
        contrastloss.CLIPLoss(backend=name)(x, torch.randn(9, 5)).backward()
contrastloss.mining.hard_negatives(x.detach(), torch.randn(30, 5), positives=torch.arange(9), k=3)
print(seen)
"""


def test_no_connection_process_file_or_pickle():
    """Importing and computing open no connection, start no process, write no file and unpickle
    nothing: SECURITY.md."""
    done = run(TRUSTED)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"
    found = run(
        TRUSTED.replace("print(seen)", "import subprocess; subprocess.run(['true'])\nprint(seen)")
    )
    assert "subprocess.Popen" in found.stdout
