"""An excerpt of a page retrieves the excerpt that follows it, on pages not seen in training.

    python examples/text.py

The text is Python's language reference, which comes with Python (``pydoc_data``). Its pages are cut
into excerpts of 50 words; a third of the pages is held out. The encoder sums the embeddings of
hashed character n-grams. In training, pages are drawn evenly, so an excerpt of a short page comes
more often than one of a long page; ``log_q`` corrects for this. Retrieval among the held-out
excerpts is compared with scikit-learn's TF-IDF of the same n-grams and with the encoder before
training.
"""

import argparse
import random
import zlib
from functools import cache
from pydoc_data.topics import topics

import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from contrastloss import InfoNCELoss

BUCKETS = 2**14
#: number of words in an excerpt
WIDTH = 50
VECTORIZER = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 4), sublinear_tf=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200, help="default: %(default)s")
    parser.add_argument("--batch", type=int, default=256, help="pairs of excerpts per step")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def pages(seed: int) -> tuple[list[list[str]], list[list[str]]]:
    """The words of the pages, for training and for test."""
    found = [page for page in map(str.split, topics.values()) if len(page) > 2 * WIDTH]
    random.Random(seed).shuffle(found)
    third = len(found) // 3
    return found[third:], found[:third]


@cache
def ngrams(word: str) -> set[int]:
    return {zlib.crc32(gram.encode()) % BUCKETS for gram in VECTORIZER.build_analyzer()(word)}


class Encoder(nn.Module):
    """The weighted sum of the embeddings of all n-grams in an excerpt."""

    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(BUCKETS, 256, mode="sum")
        self.weight = nn.Parameter(torch.zeros(BUCKETS))  # logarithm of the weights

    def forward(self, excerpts: list[list[str]]) -> Tensor:
        if self.training:  # drop some of the words
            excerpts = [random.sample(words, int(0.7 * len(words))) for words in excerpts]
        found = [sorted(set().union(*map(ngrams, words))) for words in excerpts]
        starts = torch.tensor([0, *map(len, found[:-1])]).cumsum(0)
        index = torch.tensor([gram for grams in found for gram in grams])
        return self.bag(index, starts, self.weight[index].exp())


def train(model: Encoder, texts: list[list[str]], steps: int, batch: int) -> None:
    loss = InfoNCELoss(temperature=0.15)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    for _ in tqdm(range(steps), leave=False, disable=None):
        drawn = random.choices(texts, k=batch)
        places = [len(page) - 2 * WIDTH for page in drawn]  # possible starts of an excerpt
        starts = [random.randrange(count) for count in places]
        first, second = (
            [page[k + shift : k + shift + WIDTH] for page, k in zip(drawn, starts, strict=True)]
            for shift in (0, WIDTH)
        )
        log_q = -torch.tensor(places).float().log()  # up to a constant
        optimizer.zero_grad()
        loss(model(first), model(second), log_q=log_q).backward()
        optimizer.step()
        schedule.step()
    model.eval()


def ranking(first: Tensor, second: Tensor) -> str:
    """The share of excerpts whose successor ranks first, and the mean reciprocal rank."""
    scores = F.normalize(first) @ F.normalize(second).mT
    ranks = (scores > scores.diag()[:, None]).sum(1) + 1
    return f"{(ranks == 1).float().mean():.3f} ({(1 / ranks).mean():.3f})"


def main() -> None:
    args = arguments()
    random.seed(args.seed)
    torch.manual_seed(args.seed)
    known, held_out = pages(args.seed)
    pairs = [
        (page[k : k + WIDTH], page[k + WIDTH : k + 2 * WIDTH])
        for page in held_out
        for k in range(0, len(page) - 2 * WIDTH, 2 * WIDTH)
    ]
    first, second = map(list, zip(*pairs, strict=True))

    model, found = Encoder().eval(), {}
    with torch.no_grad():
        found["untrained"] = ranking(model(first), model(second))
    train(model.train(), known, args.steps, args.batch)
    with torch.no_grad():
        found["contrastive"] = ranking(model(first), model(second))
    VECTORIZER.fit(map(" ".join, known))
    dense = (VECTORIZER.transform(map(" ".join, half)).toarray() for half in (first, second))
    found["TF-IDF"] = ranking(*map(torch.from_numpy, dense))
    print(f"{len(known)} pages for training, {len(held_out)} held out with {len(pairs)} queries")
    results = ", ".join(f"{name} {value}" for name, value in found.items())
    print(f"next excerpt, top-1 (MRR): {results}")


if __name__ == "__main__":
    main()
