"""What the machine code of a CUDA library does, from nvdisasm: instructions of every straight piece
of a kernel's code."""

import re
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

#: the constant kernels' formulas, in the numbers of csrc/cuda/plan.h, and what they are for
PROGRAMS = {
    "0": "one log-sum-exp (MoCo)",
    "0 5": "log-sum-exp, sum (CLIP, NT-Xent)",
    "0 4 5": "log-sum-exp, two sums (SupCon)",
    "0 0": "two log-sum-exps",
    "0 0 5": "two log-sum-exps, sum",
    "5 9": "sum, softplus (SigLIP)",
    "": "any program",
}
ELEMENTS = {"13__nv_bfloat16f": "bf16", "6__halff": "fp16", "ff": "fp32", "dd": "fp64"}
PAIRS = 64  # of a lane in a constant kernel


@dataclass
class Kernel:
    """A kernel of pairs: registers, stack bytes and its straight pieces."""

    registers: int = 0
    stack: int = 0
    pieces: list[Counter] = field(default_factory=list)

    def total(self, name):
        return sum(piece[name] for piece in self.pieces)

    def per_pair(self):
        """Instructions per pair of the shortest piece that exponentiates all of a lane's pairs."""
        found = [p.total() for p in self.pieces if p["MUFU"] == PAIRS]
        return round(min(found) / PAIRS, 1) if found else None

    def per_test(self):
        """Instructions per pair of a test on ids."""
        found = [p.total() for p in self.pieces if p["ISETP"] >= 2 * PAIRS and p["SEL"] >= PAIRS]
        return round(min(found) / PAIRS, 1) if found else None

    def loop(self):
        """Instructions of the pieces that multiply and that copy the next stage, for 64 matrix
        instructions."""
        products = next((p for p in self.pieces if p["HMMA"]), None)
        copies = [p for p in self.pieces if p["LDGSTS"]]
        return None if products is None else products.total() + min(p.total() for p in copies)


def name_of(mangled):
    """(pass, element, program) of a kernel of pairs, or None."""
    found = re.search(r"(forward|h_block)_kernelI(\w+?)NS0_8FormulasIJ(\w*?)EEE", mangled)
    if not found:
        return None
    program = " ".join(re.findall(r"Li(\d+)E", found[3] + "E"))
    return found[1], ELEMENTS[found[2]], program


def read(library, architecture, tools, folder):
    """The kernels of pairs by :func:`name_of`."""

    def run(tool, *arguments):
        command = [str(tools / tool), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
        return done.stdout

    if library.suffix == ".so":
        run("cuobjdump", "-xelf", "all", library)
        cubins = sorted(Path(folder).glob(f"*.{architecture}*.cubin"))
    else:
        cubins = [library]
    found = {}
    for cubin in cubins:
        _resources(run("cuobjdump", "-res-usage", cubin), found)
        _pieces(run("nvdisasm", "-c", cubin), found)
    return found


def _resources(text, found):
    for mangled, registers, stack in re.findall(r"Function (\S+):\s+REG:(\d+) STACK:(\d+)", text):
        if name := name_of(mangled):
            found[name] = Kernel(int(registers), int(stack))


def _pieces(text, found):
    sections = re.split(r"^\s*\.section\s+\.text\.(\S+?),", text, flags=re.MULTILINE)
    for mangled, code in zip(sections[1::2], sections[2::2], strict=True):
        if kernel := found.get(name_of(mangled)):
            kernel.pieces += pieces(code)


def pieces(text):
    """How often each instruction occurs in every straight piece of disassembled code."""
    found, begins = [], True
    for line in text.splitlines():
        if re.match(r"\.L\S*:", line):
            begins = True
        elif instruction := re.match(r"\s*/\*[0-9a-f]+\*/\s+(?:@\S+\s+)?([A-Z0-9_]+)", line):
            if begins:
                found.append(Counter())
            found[-1][instruction[1]] += 1
            begins = instruction[1] in ("BRA", "BRX", "EXIT", "RET", "JMP")
    return found
