"""Mining a corpus on disk: what mining in memory finds, whatever the files, the blocks and the
interruptions; and errors that name the file and the row."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from contrastloss import mining
from contrastloss.__main__ import main
from contrastloss.mining import hard_negatives, ids as of_rows, job, mine_files, result

N, M, D = 37, 230, 6


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """64 rows of the corpus and 16 of queries, in fp32, and few ids and results."""
    monkeypatch.setattr(of_rows, "SIZE", 40)
    monkeypatch.setattr(result, "ROWS", 20)
    monkeypatch.setattr(job, "BYTES", 64 * D * 4)
    monkeypatch.setattr(job, "QUERIES", 16)


def embeddings(n, dtype=torch.float32, seed=0):
    return torch.randn(n, D, generator=torch.Generator().manual_seed(seed)).to(dtype)


def lists(values):
    return pa.array(values.tolist(), pa.list_({torch.float16: pa.float16()}.get(
        values.dtype, pa.float64() if values.dtype == torch.float64 else pa.float32()
    )))  # fmt: skip


def save(path, values, ids=None, group=50):
    """Embeddings as a file of the format that the name ends in."""
    if path.suffix == ".npy":
        np.save(path, values.numpy())
    elif path.suffix == ".safetensors":
        save_file({"z": values, **({} if ids is None else {"ids": torch.tensor(ids)})}, path)
    else:
        columns = {"text": ["?"] * len(values), "embedding": lists(values)}
        if ids is not None:
            columns["id"] = ids
        pq.write_table(pa.table(columns), path, row_group_size=group)
    return path


def read(path):
    return pq.read_table(path).to_pydict()


def check(found, want, ids=range(M)):
    """The negatives and scores of ``hard_negatives``."""
    for row, (values, index) in enumerate(zip(*want, strict=True)):
        some = index >= 0
        assert found["negatives"][row] == [ids[j] for j in index[some].tolist()]
        assert found["scores"][row] == pytest.approx(values[some].tolist(), rel=1e-5)


POSITIVES = torch.stack([torch.arange(N) * 5, torch.arange(N) % 7 * 30 + 3], 1)
POSITIVES[::3, 1] = -1
POSITIVES[4] = -1
RULES = {
    "none": {},
    "margins": {"absolute_margin": 0.05, "relative_margin": 0.1, "skip": 2},
    "bounds": {"max_score": 0.8, "min_score": 0.2},
    "all": {"absolute_margin": 0.0, "max_score": 0.7, "min_score": -0.5, "skip": 1},
}


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("ending", ["npy", "safetensors", "parquet"])
def test_the_same_as_in_memory(tmp_path, rules, normalize, dtype, ending, monkeypatch):
    if rules == "margins":
        monkeypatch.setattr(job, "HELD", 100)
    x, y = embeddings(N, dtype), embeddings(M, dtype, 1)
    paths = [save(tmp_path / f"{k}.{ending}", v) for k, v in (("x", x), ("y", y))]
    np.save(tmp_path / "p.npy", POSITIVES.numpy())
    out, options = tmp_path / "o.parquet", {**RULES[rules], "normalize": normalize}
    mine_files(*paths, out, 9, positives=tmp_path / "p.npy", **options)
    found = read(out)
    check(found, hard_negatives(x, y, POSITIVES, 9, **options))
    assert found["query"] == list(range(N))
    assert found["positives"] == [[j for j in row if j >= 0] for row in POSITIVES.tolist()]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        ["o.parquet", "p.npy", f"x.{ending}", f"y.{ending}"]
    )


def test_bf16_meets_fp32_and_without_positives(tmp_path):
    x, y = embeddings(N, torch.bfloat16), embeddings(M, seed=1)
    out = tmp_path / "o.parquet"
    mine_files(save(tmp_path / "x.safetensors", x), save(tmp_path / "y.npy", y), out, 300)
    nothing = torch.full((N, 1), -1)
    check(read(out), hard_negatives(x.float(), y, nothing, 300))
    assert "positives" not in read(out)


@pytest.mark.parametrize("group", [1, 7, 64, 1000])
def test_ids_are_kept(tmp_path, group):
    """Strings of a .parquet's own column, integers of a safetensors, and of a file of ids; pairs of
    positives by id, of which one occurs twice."""
    x, y = embeddings(N), embeddings(M, seed=1)
    names, numbers = [f"doc-{7 * k % M}" for k in range(M)], [1000 - k for k in range(N)]
    corpus = save(tmp_path / "y.parquet", y, names, group)
    queries = save(tmp_path / "x.safetensors", x, numbers)
    rows, places = (POSITIVES >= 0).nonzero(as_tuple=True)
    pairs = [(numbers[i], names[j]) for i, j in zip(rows, POSITIVES[rows, places], strict=True)]
    table = {"query": [q for q, _ in pairs], "positive": [p for _, p in pairs]}
    table = {k: [*v, v[0]] for k, v in table.items()}
    pq.write_table(pa.table(table), tmp_path / "p.parquet")
    out, rules = tmp_path / "o.parquet", {"absolute_margin": 0.1}
    mine_files(queries, corpus, out, 5, positives=tmp_path / "p.parquet", **rules)
    found = read(out)
    check(found, hard_negatives(x, y, POSITIVES, 5, **rules), names)
    assert found["query"] == numbers
    assert found["positives"][1] == [names[j] for j in POSITIVES[1].tolist()]
    # the same ids in files of their own
    np.save(tmp_path / "names.npy", np.array(names))
    np.save(tmp_path / "numbers.npy", np.array(numbers))
    other, options = tmp_path / "other.parquet", {**rules, "positives": tmp_path / "p.parquet"}
    paths = [save(tmp_path / f"{k}.npy", v) for k, v in (("x", x), ("y", y))]
    mine_files(
        *paths, other, 5,
        query_ids=tmp_path / "numbers.npy", corpus_ids=tmp_path / "names.npy", **options,
    )  # fmt: skip
    assert read(other) == found


def test_frames_and_datasets_read_it(tmp_path):
    datasets = pytest.importorskip("datasets")
    pandas = pytest.importorskip("pandas")
    paths = [save(tmp_path / f"{k}.npy", embeddings(n)) for k, n in (("x", N), ("y", M))]
    out = tmp_path / "o.parquet"
    mine_files(*paths, out, 3)
    frame = pandas.read_parquet(out).explode(["negatives", "scores"])
    data = datasets.Dataset.from_parquet(str(out), cache_dir=str(tmp_path / "cache"))
    assert len(frame) == 3 * N
    assert data[5]["negatives"] == read(out)["negatives"][5]
    assert data.column_names == ["query", "negatives", "scores"]


# ---- the window of sentence-transformers ---------------------------------------------------------


def test_a_window_by_hand(tmp_path):
    """The best are 9, 8, 7, 6, ...; of range_max + 1 of them, bounds leave some, then skip."""
    x, y = torch.ones(1, D) / D, torch.arange(10.0)[:, None].expand(10, D).contiguous()
    paths = [save(tmp_path / f"{k}.npy", v) for k, v in (("x", x), ("y", y))]
    np.save(tmp_path / "p.npy", np.array([8]))

    def mined(k, **rules):
        out = tmp_path / "o.parquet"
        mine_files(*paths, out, k, positives=tmp_path / "p.npy", normalize=False, **rules)
        return read(out)["negatives"][0]

    assert mined(3, range_max=4) == [9, 7, 6]
    assert mined(3, range_max=4, skip=1) == [7, 6, 5]
    assert mined(3, range_max=4, absolute_margin=1.0) == [7, 6, 5]
    assert mined(3, range_max=4, absolute_margin=2.0) == [6, 5]  # and no others
    assert mined(2, range_max=4, skip=1, max_score=6.0) == [5]
    assert mined(2, range_max=4, min_score=7.0) == [9, 7]
    draws = [mined(2, range_max=4, sampling="random", seed=s) for s in range(20)]
    assert {tuple(d) for d in draws} == {
        (9, 7), (9, 6), (9, 5), (7, 6), (7, 5), (6, 5)
    }  # fmt: skip
    assert mined(20, range_max=20, sampling="random") == [9, 7, 6, 5, 4, 3, 2, 1, 0]


# ---- interruptions -------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [1, 2, 3, 5, 11])
def test_an_interrupted_job_goes_on(tmp_path, after):
    x, y = embeddings(N), embeddings(M, seed=1)
    paths = [save(tmp_path / f"{k}.npy", v) for k, v in (("x", x), ("y", y))]
    np.save(tmp_path / "p.npy", POSITIVES.numpy())
    out, options = tmp_path / "o.parquet", {"positives": tmp_path / "p.npy", **RULES["margins"]}
    done = []

    def stop(part, total):
        done.append(part)
        if len(done) == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mine_files(*paths, out, 5, progress=stop, **options)
    assert not out.exists()
    assert (tmp_path / "o.parquet.state").exists()
    mine_files(*paths, out, 5, progress=lambda part, total: done.append(part), **options)
    check(read(out), hard_negatives(x, y, POSITIVES, 5, **RULES["margins"]))
    blocks = 3 * 4  # of queries, of the corpus
    assert len(done) == 2 + blocks + 1  # two beginnings, an end, and no block twice
    assert done == sorted(done)
    assert done[-1] == N * M
    assert not (tmp_path / "o.parquet.state").exists()


@pytest.mark.parametrize("change", ["a file", "a rule", "a broken state"])
def test_another_job_starts_again(tmp_path, change):
    x, y = embeddings(N), embeddings(M, seed=1)
    paths = [save(tmp_path / f"{k}.npy", v) for k, v in (("x", x), ("y", y))]
    out, calls = tmp_path / "o.parquet", []

    def stop(part, total):
        if part > N * M / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mine_files(*paths, out, 5, progress=stop)
    k = 6 if change == "a rule" else 5
    if change == "a file":
        y = embeddings(M + 1, seed=2)
        save(paths[1], y)
    if change == "a broken state":
        state = tmp_path / "o.parquet.state"
        state.write_bytes(state.read_bytes()[:99])
    mine_files(*paths, out, k, progress=lambda part, total: calls.append(part))
    assert len(calls) == 14
    check(read(out), hard_negatives(x, y, torch.full((N, 1), -1), k), range(M + 1))


def test_the_state_is_saved_from_time_to_time(tmp_path, monkeypatch):
    paths = [save(tmp_path / f"{k}.npy", embeddings(n)) for k, n in (("x", N), ("y", M))]
    monkeypatch.setattr(job, "SECONDS", 0.0)
    saved = []

    def look(part, total):
        saved.append((tmp_path / "o.parquet.state").exists())

    mine_files(*paths, tmp_path / "o.parquet", 5, progress=look)
    assert saved == [False, False, *[True] * 12]


# ---- files that are not what they should be ------------------------------------------------------


def of_numpy(array):
    return lambda path: np.save(path, array, allow_pickle=True)


def cut(save_it, share=0.5):
    def write(path):
        save_it(path)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])

    return write


def with_value(row, value, dtype=torch.float32):
    values = embeddings(M, dtype)
    values[row, 2] = value
    return lambda path: save(path, values)


def of_lists(values, kind=None):
    kind = kind or pa.list_(pa.float32())
    return lambda path: pq.write_table(pa.table({"e": pa.array(values, kind)}), path, 50)


whole = lambda path: save(path, embeddings(M))  # noqa: E731
full = [[0.5] * D] * M
BAD = {
    "y.npy: row 201: got NaN, expected finite": with_value(201, float("nan")),
    "y.npy: row 3: got -inf, expected finite": with_value(3, -float("inf"), torch.float16),
    "y.safetensors: row 128: got inf, expected": with_value(128, float("inf"), torch.bfloat16),
    "y.parquet: row 229: got NaN, expected": with_value(229, float("nan")),
    "y.npy: got dtype int64, expected one of float16": of_numpy(np.ones((M, D), int)),
    "y.npy: got dtype >f4, expected": of_numpy(np.ones((M, D), ">f4")),
    r"y.npy: got shape \(4,\), one of 1 dimensions, expected \(rows, dim\)": of_numpy(np.ones(4)),
    "y.npy: got Python objects": of_numpy(np.array([[1.0], [1.0, 2.0]], object)),
    "y.npy: row 11[0-9]: got a truncated file, of [0-9,]+ bytes": cut(whole),
    "y.npy: got no header": cut(whole, 0.001),
    "y.safetensors: got a file that is no whole one": cut(whole),
    "y.safetensors: got dtype I64": lambda path: save_file({"a": torch.ones(M, D).long()}, path),
    "y.safetensors: got 2 tensors with embeddings": lambda path: save_file(
        {"a": torch.ones(M, D), "b": torch.ones(M, D)}, path
    ),
    "y.parquet: got a file that is no whole one": cut(whole),
    "y.parquet: row 199: got 5 numbers, expected 6": of_lists(
        [*full[:199], [0.5] * 5, *full[200:]]
    ),
    "y.parquet: row 60: got no list, expected 6": of_lists([*full[:60], None, *full[61:]]),
    "y.parquet: row 7: got a missing number": of_lists([*full[:7], [None, *full[0][1:]]]),
    "y.parquet: got lists of int64": of_lists([[1] * D] * M, pa.list_(pa.int64())),
    "y.parquet: got 0 columns with embeddings": of_lists([1.0] * M, pa.float32()),
    "x.npy: got embeddings of length 6, expected that of .*y.npy, 5": of_numpy(np.ones((M, 5))),
    "y.csv: got the ending '.csv', expected .npy": lambda path: path.write_text("1,2"),
    "y.npy: got no file": lambda path: None,
}


@pytest.mark.parametrize("message", BAD)
def test_a_bad_file_is_named_with_its_row(tmp_path, message):
    name = message.split(":")[0] if message.startswith("y") else "y.npy"
    write = BAD[message]
    write(tmp_path / name)
    queries, out = save(tmp_path / "x.npy", embeddings(N)), tmp_path / "o.parquet"
    with pytest.raises(ValueError, match=message):
        mine_files(queries, tmp_path / name, out, 5)
    assert {p.name for p in tmp_path.iterdir()} <= {"x.npy", name}, "something is half-written"


def pairs(queries, positives):
    return lambda path: pq.write_table(pa.table({"query": queries, "positive": positives}), path)


BAD_POSITIVES = {
    r"p.npy: got dtype float64 and shape \(37,\), expected integers": of_numpy(np.ones(N)),
    r"p.npy: got dtype int64 and shape \(36,\)": of_numpy(np.ones(N - 1, int)),
    "p.npy: row 0: got 230, expected -1 to 229": of_numpy(np.full(N, M)),
    "p.parquet: row 1: got 37, expected an id of .*x.npy": pairs([0, N], [1, 1]),
    "p.parquet: row 2: got -3, expected an id of .*y.npy": pairs([0, 1, 2], [1, 1, -3]),
    "p.parquet: got ids of type": pairs(["a"], [1]),
    "p.parquet: got the columns a, expected query and positive": lambda path: pq.write_table(
        pa.table({"a": [1]}), path
    ),
    "p.csv: got the ending '.csv'": lambda path: path.write_text("1,2"),
    "p.npy: got no file": lambda path: None,
}


@pytest.mark.parametrize("message", BAD_POSITIVES)
def test_bad_positives(tmp_path, message):
    path = tmp_path / message.split(":")[0]
    BAD_POSITIVES[message](path)
    files = [save(tmp_path / f"{k}.npy", embeddings(n)) for k, n in (("x", N), ("y", M))]
    with pytest.raises(ValueError, match=message):
        mine_files(*files, tmp_path / "o.parquet", 5, positives=path)
    assert not (tmp_path / "o.parquet").exists()


def test_bad_ids(tmp_path):
    files = [save(tmp_path / f"{k}.npy", embeddings(n)) for k, n in (("x", N), ("y", M))]
    np.save(tmp_path / "i.npy", np.ones(N))
    with pytest.raises(ValueError, match=r"i.npy: got dtype float64 and shape \(37,\), expected"):
        mine_files(*files, tmp_path / "o.parquet", 5, query_ids=tmp_path / "i.npy")
    ids = [None if k == 130 else k for k in range(M)]
    corpus = save(tmp_path / "y.parquet", embeddings(M), ids)
    with pytest.raises(ValueError, match=r"y.parquet: row 130: got no id"):
        mine_files(files[0], corpus, tmp_path / "o.parquet", 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k: got 0, expected at least 1"),
        ({"skip": -1}, "skip: got -1"),
        ({"sampling": "best"}, "sampling: got 'best', expected 'top' or 'random'"),
        ({"sampling": "random"}, "range_max: got None"),
        ({"range_max": 6, "skip": 2}, r"range_max: got 6, expected at least skip \+ k, 7"),
        ({"max_score": float("nan")}, "max_score: got nan"),
        ({"absolute_margin": 0.1}, "positives: got None, expected a file with a margin"),
        ({"output": "o.csv"}, "output: got o.csv, expected a name that ends in .parquet"),
        ({"output": "no/o.parquet"}, "output: got no/o.parquet, expected a name in a folder"),
    ],
)
def test_bad_options(tmp_path, options, message):
    files = [save(tmp_path / f"{k}.npy", embeddings(n)) for k, n in (("x", N), ("y", M))]
    given = {"output": tmp_path / "o.parquet", "k": 5, **options}
    with pytest.raises(ValueError, match=message):
        mine_files(*files, given.pop("output"), given.pop("k"), **given)


# ---- the command ---------------------------------------------------------------------------------


def test_the_command(tmp_path, capsys):
    x, y = embeddings(N), embeddings(M, seed=1)
    paths = [str(save(tmp_path / f"{k}.npy", v)) for k, v in (("x", x), ("y", y))]
    np.save(tmp_path / "p.npy", POSITIVES.numpy())
    words = ["--k", "4", "--positives", str(tmp_path / "p.npy"), "--margin", "0.1"]
    words += ["--dot", "--skip", "1", "--output", str(tmp_path / "mined.parquet")]
    assert main(["mine", *paths, *words]) == 0
    said = capsys.readouterr()
    assert said.out == f"37 queries in {tmp_path / 'mined.parquet'}\n"
    assert "100%" in said.err
    assert "pairs/s" in said.err
    assert "left" in said.err
    want = hard_negatives(x, y, POSITIVES, 4, absolute_margin=0.1, skip=1, normalize=False)
    check(read(tmp_path / "mined.parquet"), want)


def test_the_command_says_what_is_wrong(tmp_path, capsys, monkeypatch):
    paths = [str(save(tmp_path / f"{k}.npy", embeddings(n))) for k, n in (("x", N), ("y", M))]
    out = str(tmp_path / "o.parquet")
    with pytest.raises(SystemExit) as stopped:
        main(["mine", paths[0], str(tmp_path / "z.npy"), "--output", out])
    assert stopped.value.code == 1
    assert "z.npy: got no file, expected one with embeddings\n" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        main(["mine", *paths, "--output", str(tmp_path / "o.csv")])
    assert stopped.value.code == 2
    monkeypatch.setattr(job._Job, "search", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(SystemExit) as stopped:
        main(["mine", *paths, "--output", out])
    assert stopped.value.code == 130
    assert "the same command goes on from here" in capsys.readouterr().err


def test_its_name_is_public():
    assert "mine_files" in mining.__all__


@pytest.mark.parametrize(("n", "m"), [(0, M), (N, 0), (1, 1)])
@pytest.mark.parametrize("ending", ["npy", "safetensors", "parquet"])
def test_few_rows(tmp_path, n, m, ending):
    x, y = embeddings(n), embeddings(m, seed=1)
    paths = [save(tmp_path / f"{k}.{ending}", v) for k, v in (("x", x), ("y", y))]
    for rules in ({}, {"range_max": 4, "sampling": "random"}):
        mine_files(*paths, tmp_path / "o.parquet", 3, **rules)
        found = read(tmp_path / "o.parquet")
        assert found["query"] == list(range(n))
        assert found["negatives"] == [list(range(min(m, 3)))] * n
