"""Places that several machines reach, where objects of bytes lie under names: a folder, a bucket."""

from thinwire.stores.base import Store, check_name
from thinwire.stores.folder import FolderStore

__all__ = ["FolderStore", "Store", "check_name"]
