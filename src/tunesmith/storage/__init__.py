"""Where the log of a study lives."""

from tunesmith.storage.base import Store, StoreError, open_store
from tunesmith.storage.memory import MemoryStore
from tunesmith.storage.sqlite import SQLiteStore

__all__ = ["MemoryStore", "SQLiteStore", "Store", "StoreError", "open_store"]
