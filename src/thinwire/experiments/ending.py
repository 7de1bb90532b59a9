"""How commands are ended from outside; waits for nothing, so that the command line can ask for it at once."""


class Terminated(BaseException):
    """SIGTERM ended the launcher; its workers are gone. Like KeyboardInterrupt, nothing but the end answers it."""
