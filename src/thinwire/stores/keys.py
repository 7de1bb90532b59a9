"""The secret that the workers of a run share."""

import hashlib
import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path

from thinwire.errors import ConfigError
from thinwire.files import StrPath, not_writable

NUM_BYTES = 32
_PERSON = b"thinwire key 1"


@dataclass(frozen=True, slots=True)
class RunKey:
    """32 random bytes that say who may take part in a training run; give them to its workers and to nobody else.

    Args:
        secret: the bytes; they are never printed.

    Raises:
        ConfigError: not 32 bytes.

    Example:
        >>> key = RunKey.create()
        >>> key, RunKey.from_hex(key.to_hex()) == key
        (RunKey(), True)
    """

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if type(self.secret) is not bytes or len(self.secret) != NUM_BYTES:
            raise ConfigError(
                f"a run's key of {len(self.secret)} {type(self.secret).__name__} was given; it is {NUM_BYTES} bytes: "
                "RunKey.create() makes one"
            )

    @classmethod
    def create(cls) -> "RunKey":
        """A new one, from the system's random numbers."""
        return cls(secrets.token_bytes(NUM_BYTES))

    @classmethod
    def from_hex(cls, text: str) -> "RunKey":
        """The one that :meth:`to_hex` wrote down.

        Raises:
            ConfigError: not 64 digits from 0 to f; the text is not repeated, for it may be nearly a key.
        """
        try:
            found = bytes.fromhex(text.strip())
        except ValueError:
            found = b""
        if len(found) != NUM_BYTES:
            raise ConfigError(
                f"a run's key of {len(text.strip())} characters was given; as text it is {2 * NUM_BYTES} digits from 0 "
                "to f, as RunKey.to_hex() writes them"
            )
        return cls(found)

    @classmethod
    def from_file(cls, path: StrPath) -> "RunKey":
        """The one in a file that only its owner can read.

        Raises:
            ConfigError: no such file, one that others can read, or one that holds no key.
        """
        try:
            with open(path, "rb") as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                text = file.read(4 * NUM_BYTES)
        except OSError as error:
            raise ConfigError(
                f"the run's key cannot be read from {os.fspath(path)} ({error.strerror}); RunKey.create().write(path) "
                "makes such a file"
            ) from error
        if os.name == "posix" and mode & 0o077:
            raise ConfigError(
                f"others than its owner may read or write the run's key in {os.fspath(path)} (mode {mode:04o}); run: "
                f"chmod 600 {os.fspath(path)}, and make a new key if somebody has read it"
            )
        return cls.from_hex(text.decode("ascii", errors="replace"))

    def write(self, path: StrPath) -> None:
        """Write it to a new file of mode 0600.

        Raises:
            ConfigError: there is a file, or none can be written.
        """
        target = Path(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            opened = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(opened, "w", encoding="ascii") as file:
                file.write(self.to_hex() + "\n")
        except FileExistsError as error:
            raise ConfigError(
                f"there is a file {target} already; a key is not written over, give another place"
            ) from error
        except OSError as error:
            raise not_writable(target, error) from error

    def to_hex(self) -> str:
        """64 digits, to be kept as secret as the key."""
        return self.secret.hex()

    def derive(self, purpose: str) -> bytes:
        """The key for one purpose, 32 bytes: who has it knows nothing of the key or of those for other purposes.

        Example:
            >>> key = RunKey(bytes(32))
            >>> key.derive("seal") == key.derive("seal"), key.derive("seal") == key.derive("other")
            (True, False)
        """
        state = hashlib.blake2b(purpose.encode(), key=self.secret, digest_size=NUM_BYTES, person=_PERSON)
        return state.digest()
