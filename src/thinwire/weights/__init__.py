"""Weights of a trainer at inference workers: exactly, and only what changed; FORMAT.md has the bytes."""

from thinwire.weights.follower import FollowReport, WeightFollower
from thinwire.weights.publisher import PublishReport, WeightPublisher
from thinwire.weights.serving import MemoryStore, RemoteStore, StoreServer
from thinwire.weights.sync import sync_weights

__all__ = [
    "FollowReport",
    "MemoryStore",
    "PublishReport",
    "RemoteStore",
    "StoreServer",
    "WeightFollower",
    "WeightPublisher",
    "sync_weights",
]
