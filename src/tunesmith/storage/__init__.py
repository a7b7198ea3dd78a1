"""Where the log of a study lives."""

from tunesmith.storage.base import LostError, Store, StoreError, open_store
from tunesmith.storage.memory import MemoryStore
from tunesmith.storage.sqlite import SQLiteStore

__all__ = ["LostError", "MemoryStore", "SQLiteStore", "Store", "StoreError", "open_store"]
