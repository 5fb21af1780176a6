"""State across batches: queues of earlier embeddings, and momentum encoders."""

from .cross_batch import CrossBatchMemory
from .momentum import MomentumEncoder
from .queue import EmbeddingQueue, Snapshot as Snapshot, check_integers as check_integers

# "name as name": what other layers use, but users should not
__all__ = ["CrossBatchMemory", "EmbeddingQueue", "MomentumEncoder"]
