"""State across batches: queues of earlier embeddings, and momentum encoders."""

from .cross_batch import CrossBatchMemory
from .momentum import MomentumEncoder
from .queue import EmbeddingQueue, Snapshot, check_integers

__all__ = ["CrossBatchMemory", "EmbeddingQueue", "MomentumEncoder", "Snapshot", "check_integers"]
