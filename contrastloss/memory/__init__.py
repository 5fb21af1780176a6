"""What outlives a batch: embeddings of earlier ones, and an encoder that follows another slowly."""

from .cross_batch import CrossBatchMemory
from .momentum import MomentumEncoder
from .queue import EmbeddingQueue, Snapshot, check_integers

__all__ = ["CrossBatchMemory", "EmbeddingQueue", "MomentumEncoder", "Snapshot", "check_integers"]
