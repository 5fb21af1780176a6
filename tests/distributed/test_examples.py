"""The programs of examples/, docs/distributed.md and gradcache.md: two processes give the same
losses and gradients as one process on the whole batch."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "examples/ddp_digits.py"
PAGE = (ROOT / "docs/distributed.md").read_text()
CACHED = (ROOT / "docs/gradcache.md").read_text()

LAUNCHER = ["-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
#: sections whose Python code is a separate program; all other blocks together are one program
PROGRAMS = ("Lightning", "Hugging Face Trainer")

#: checks appended to a program: `whole` is the model on the batch of all processes
WHOLE = """
from torch.testing import assert_close

def step(whole, images, texts):
    x, y = whole.images(images), whole.texts(texts)
    value = CLIPLoss()(x, y, logit_scale=whole.temperature())
    whole.zero_grad()
    value.backward()
    return value

assert dist.get_world_size() == 2
torch.manual_seed(0)
"""
CHECKS = {
    "": """
whole = TwoTowers()
value = step(whole, torch.randn(65, 32), torch.randn(65, 24))
assert images.shape[0] == (33, 32)[rank]
assert_close(loss, value)
assert_close(sharded_loss, value)

whole_grads = {name: p.grad for name, p in whole.named_parameters()}
ddp_grads = {name: p.grad for name, p in model.module.named_parameters()}
assert_close(ddp_grads, whole_grads)

grads = {name: p.grad.full_tensor() for name, p in sharded.named_parameters()}
assert_close(grads, whole_grads)
held = {name: p.grad.to_local().numel() for name, p in sharded.named_parameters()}
assert held["images.weight"] == whole.images.weight.numel() // 2
dist.destroy_process_group()
""",
    "Lightning": """
whole = TwoTowers()
batch = torch.randn(64, 32), torch.randn(64, 24)
optimizer = torch.optim.SGD(whole.parameters(), lr=0.1)
for _ in range(2):
    value = step(whole, *batch)
    optimizer.step()
assert_close(trainer.logged_metrics["loss"], value.detach())
assert_close(model.state_dict(), whole.state_dict())
""",
    "Hugging Face Trainer": """
whole = TwoTowers(None)
data = [(torch.randn(32), torch.randn(24)) for _ in range(64)]
batch = [torch.stack(part) for part in zip(*data)]
optimizer = torch.optim.SGD(whole.parameters(), lr=0.1)
losses = []
for _ in range(2):
    losses.append(step(whole, *batch).item())
    optimizer.step()
assert_close(trainer.state.log_history[-1]["train_loss"], sum(losses) / 2, rtol=1e-5, atol=0)
assert_close(model.state_dict(), whole.state_dict())
""",
}


def run(folder, *command):
    """The output of ``python command``, with one thread per process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def spread(folder, *command):
    return run(folder, *LAUNCHER, "--nproc-per-node", 2, *command)


@pytest.mark.extra
def test_digits_have_the_same_losses_in_one_process_and_in_two(tmp_path):
    one = [float(line) for line in run(tmp_path, EXAMPLE, "--steps", 20).splitlines()]
    two = [float(line) for line in spread(tmp_path, EXAMPLE, "--steps", 20).splitlines()]
    assert len(one) == 20
    torch.testing.assert_close(two, one, rtol=1e-9, atol=0)
    assert sum(one[-5:]) < sum(one[:5]) - 1


def programs(page=PAGE):
    """The Python code of the page, by section."""
    found = {}
    for section in re.split(r"^## ", page, flags=re.MULTILINE):
        blocks = re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
        title = section.partition("\n")[0]
        title = title if title in PROGRAMS else ""
        found[title] = "\n".join([found.get(title, ""), *blocks])
    return found


@pytest.mark.parametrize(
    "title",
    ["", *(pytest.param(title, marks=pytest.mark.extra) for title in PROGRAMS)],
    ids=lambda title: title or "DDP and FSDP2",
)
def test_a_step_of_the_page_is_that_of_one_process(tmp_path, title):
    code = programs()[title]
    program = tmp_path / "program.py"
    program.write_text(f"import re\n{code}\n{WHOLE}{CHECKS[title]}\nprint('checked')\n")
    assert spread(tmp_path, program).count("checked") == 2


#: of docs/gradcache.md, whose first program has no group before its last block
BEFORE = """
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from contrastloss import LogitScale
dist.init_process_group("gloo")
torch.manual_seed(0)
"""
CACHED_CHECKS = {
    "": """
whole = TwoTowers()
whole.load_state_dict(model.module.state_dict())
value = step(whole, images.repeat(2, 1), texts.repeat(2, 1))  # both ranks have the same rows
assert_close(loss, value)
for ours, theirs in zip(model.module.parameters(), whole.parameters(), strict=True):
    assert_close(ours.grad, theirs.grad)
""",
    "Lightning": CHECKS["Lightning"],
    "Hugging Face Trainer": CHECKS["Hugging Face Trainer"].replace(
        "TwoTowers(None)", "TwoTowers()"
    ),
}


@pytest.mark.parametrize("title", [*PROGRAMS, ""], ids=lambda title: title or "DDP")
@pytest.mark.extra
def test_a_cached_step_is_that_of_one_process(tmp_path, title):
    code = programs(CACHED)[title]
    program = tmp_path / "program.py"
    before = "" if title else BEFORE
    checks = f"{WHOLE}{CACHED_CHECKS[title]}"
    program.write_text(f"import re\n{before}{code}\n{checks}\nprint('checked')\n")
    assert spread(tmp_path, program).count("checked") == 2


def test_page_has_one_place_for_the_ratios():
    assert re.findall(r"<!-- ratios:(\w+) -->", PAGE) == ["begin", "end"]
