"""The store: what was searched once is not searched again.

One SQLite file holds results as data under a key of everything that decides them. ``prism.store.key`` says what that
is, ``prism.store.database`` opens the file and distrusts it, ``prism.store.store`` reads and writes results.
"""

from prism.store.key import Field, Key
from prism.store.store import Entry, Store, open_store

__all__ = ["Entry", "Field", "Key", "Store", "open_store"]
