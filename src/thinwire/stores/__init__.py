"""Places that several machines reach, where objects of bytes lie under names: a folder, a bucket; and their seals."""

from thinwire.stores.address import Address, open_store
from thinwire.stores.base import Store, check_length, check_name
from thinwire.stores.folder import FolderStore
from thinwire.stores.keys import RunKey
from thinwire.stores.remote import FsspecStore
from thinwire.stores.seals import Place, Seal, SharedKeySeal
from thinwire.stores.signatures import SignatureSeal

__all__ = [
    "Address",
    "FolderStore",
    "FsspecStore",
    "Place",
    "RunKey",
    "Seal",
    "SharedKeySeal",
    "SignatureSeal",
    "Store",
    "check_length",
    "check_name",
    "open_store",
]
