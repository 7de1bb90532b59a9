"""The exceptions thinwire raises. Every message says what was given, what is allowed and what to do.

::

    ThinwireError
    ├── ConfigError    (ValueError)    a method, option, file or environment that cannot work as asked
    ├── NumericsError  (ArithmeticError)  NaN or inf where a vector was to be compressed
    ├── WireError      (ValueError)    bytes that are not a valid message
    ├── ProtocolError  (RuntimeError)  participants that do not follow the same program
    │   └── DeadlockError              every participant waits for another one
    ├── DivergenceError (RuntimeError) replicas that should be equal bit for bit and are not
    ├── StoreError     (RuntimeError)  a place for objects that does not answer, refuses, or holds what is not expected
    │   └── SealError                  an object that was damaged, belongs elsewhere, or is a stranger's
    └── WorkerError    (RuntimeError)  a worker process raised, was killed, or lost its connection
"""


class ThinwireError(Exception):
    """Root of every exception that thinwire raises on purpose."""


class ConfigError(ThinwireError, ValueError):
    """A method, option, file or environment that cannot work as asked."""


class NumericsError(ThinwireError, ArithmeticError):
    """NaN or inf in a vector that was to be compressed; nothing of it entered the memory."""


class WireError(ThinwireError, ValueError):
    """Bytes that are not a valid message of a known format version."""


class ProtocolError(ThinwireError, RuntimeError):
    """Participants of an exchange that do not follow the same program."""


class DeadlockError(ProtocolError):
    """Every participant waits for another one; the message names each waiting request."""


class DivergenceError(ThinwireError, RuntimeError):
    """Replicas that should be equal bit for bit and are not; the message names where they differ."""


class StoreError(ThinwireError, RuntimeError):
    """A place for objects that does not answer, refuses, or holds what is not expected."""


class SealError(StoreError):
    """An object that was damaged, belongs elsewhere, or was made by somebody who may not; nothing of it was read."""


class WorkerError(ThinwireError, RuntimeError):
    """A worker process raised, was killed, or lost its connection."""
