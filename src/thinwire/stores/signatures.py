"""Seals of workers that do not trust each other: each signs what it makes."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from thinwire.errors import ConfigError
from thinwire.plugins import import_package
from thinwire.stores.seals import HEADER_NUM_BYTES, SIGNED, Place, check_header, header, place_digest, refused

_RANK = struct.Struct("<I")
_SIGNATURE_NUM_BYTES = 64
_KEY_NUM_BYTES = 32


@dataclass(frozen=True, slots=True, eq=False)
class SignatureSeal:
    """An Ed25519 signature of the worker that made an object: no worker can make another one's.

    It needs the package ``cryptography`` (``pip install "thinwire[signatures]"``).

    Args:
        rank: this worker.
        secret: its own secret key, 32 bytes; :meth:`create_pair` makes one.
        roster: the public key of every worker, 32 bytes each, by rank.

    Raises:
        ConfigError: keys of another length, or a secret that is not the one of this worker's public key.

    Example:
        >>> pairs = [SignatureSeal.create_pair() for _ in range(2)]
        >>> roster = {rank: public for rank, (_, public) in enumerate(pairs)}
        >>> one, other = (SignatureSeal(rank, pairs[rank][0], roster) for rank in range(2))
        >>> place = Place("run-7", "message", 3, 1)
        >>> one.open(other.seal(b"gradient", place), place)
        b'gradient'
        >>> other.open(one.seal(b"gradient", place), place)
        Traceback (most recent call last):
        ...
        thinwire.errors.ConfigError: worker 0 cannot seal message of worker 1 in round 3 of run 'run-7'
    """

    rank: int
    secret: bytes = field(repr=False)
    roster: Mapping[int, bytes]
    _own: Any = field(init=False, repr=False)
    _keys: Mapping[int, Any] = field(init=False, repr=False)
    _invalid: type[Exception] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        ed25519 = _ed25519()
        for key in (self.secret, *self.roster.values()):
            if len(key) != _KEY_NUM_BYTES:
                raise ConfigError(f"a key of {len(key)} bytes was given; keys of signatures have {_KEY_NUM_BYTES}")
        own = ed25519.Ed25519PrivateKey.from_private_bytes(self.secret)
        if self.roster.get(self.rank) != own.public_key().public_bytes_raw():
            raise ConfigError(
                f"the secret of worker {self.rank} does not fit its public key in the roster; give each worker its own"
            )
        keys = {rank: ed25519.Ed25519PublicKey.from_public_bytes(key) for rank, key in self.roster.items()}
        invalid = import_package("cryptography.exceptions", "a signature", "thinwire[signatures]").InvalidSignature
        for name, value in (("_own", own), ("_keys", keys), ("_invalid", invalid)):
            object.__setattr__(self, name, value)

    @staticmethod
    def create_pair() -> tuple[bytes, bytes]:
        """A new secret key, and the public one to be given to all others."""
        own = _ed25519().Ed25519PrivateKey.generate()
        return own.private_bytes_raw(), own.public_key().public_bytes_raw()

    @property
    def num_bytes(self) -> int:
        """Header, rank and signature."""
        return HEADER_NUM_BYTES + _RANK.size + _SIGNATURE_NUM_BYTES

    def seal(self, contents: bytes | memoryview, place: Place) -> bytes:
        """Header, rank, signature, contents.

        Raises:
            ConfigError: it is another worker's to make.
        """
        if place.rank not in (None, self.rank):
            raise ConfigError(f"worker {self.rank} cannot seal {place}")
        signature = self._own.sign(_signed(contents, place, self.rank))
        return b"".join((header(SIGNED), _RANK.pack(self.rank), signature, contents))

    def open(self, sealed: bytes | memoryview, place: Place) -> bytes:
        """Check the signature with the key of the worker that says it made the object."""
        body = check_header(sealed, SIGNED, self.num_bytes, place)
        (signer,) = _RANK.unpack(body[: _RANK.size])
        signature, contents = body[_RANK.size :][:_SIGNATURE_NUM_BYTES], body[_RANK.size + _SIGNATURE_NUM_BYTES :]
        if signer not in self._keys or place.rank not in (None, signer):
            raise refused(place, f"worker {signer} signed it, who may not")
        try:
            self._keys[signer].verify(bytes(signature), _signed(contents, place, signer))
        except self._invalid as error:
            raise refused(
                place, f"it was damaged, moved here from another place, or not made by worker {signer}"
            ) from error
        return bytes(contents)


def _signed(contents: bytes | memoryview, place: Place, signer: int) -> bytes:
    return _RANK.pack(signer) + place_digest(contents, place, SIGNED, b"", _SIGNATURE_NUM_BYTES)


def _ed25519() -> Any:
    return import_package("cryptography.hazmat.primitives.asymmetric.ed25519", "a signature", "thinwire[signatures]")
