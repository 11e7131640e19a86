"""The errors of the framework. Each message is one line: what was given, what was expected, what came, and the remedy."""


class UserError(ValueError):
    """A wrong argument or setting; the message names it and the remedy."""


class Unsupported(NotImplementedError):
    """Something that the framework does not compute; raised in place of a wrong or zero result."""


class TraceMismatch(RuntimeError):
    """The replay of a traced op differs from an eager run of its body."""
