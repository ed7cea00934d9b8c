"""Exit codes, and the errors only the command line knows."""

from adaptd.daemon.wire.errors import AdaptdError, HaltError, SettingsError

REFUSED, MISUSED, NO_DAEMON, HALTED = 1, 2, 3, 70


class NoDaemonError(AdaptdError):
    """Nobody answers where the daemon should. Exit code 3."""


class MisuseError(AdaptdError):
    """The command line itself is wrong. Exit code 2."""


def exit_code(error: AdaptdError) -> int:
    """0 done, 1 refused, 2 misused, 3 no daemon, 70 halted."""
    if isinstance(error, NoDaemonError):
        return NO_DAEMON
    if isinstance(error, (SettingsError, MisuseError)):
        return MISUSED
    return HALTED if isinstance(error, HaltError) else REFUSED
