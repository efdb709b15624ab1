"""What went wrong, one class for each kind; all are ``Error``, and what Python's own handlers expect."""


class Error(Exception):
    """Why a case could not be segmented: one sentence with what was found and what was expected."""


class UsageError(Error, ValueError):
    """The request is wrong in itself: an unknown mode, an option out of range."""


class InputError(Error, ValueError):
    """An image cannot be read, or is not one that can be segmented."""


class ModelError(Error):
    """A model or its configuration is missing or invalid."""


class DeviceError(Error, RuntimeError):
    """A device is missing or failed."""


class MemoryLimitError(Error, MemoryError):
    """More memory is needed than ``memory_limit_bytes`` allows."""


class OutputError(Error, OSError):
    """A result could not be written; nothing was left behind."""


class Interrupted(Error):
    """The progress callback said so."""
