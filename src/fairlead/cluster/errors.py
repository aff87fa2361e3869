"""What can go wrong with a cluster as a whole: one line that says what is wrong and what to do next."""

from __future__ import annotations


class ClusterError(Exception):
    """Said to the user in one line. `remedy` is the next thing to do, ideally a command."""

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(f"{what}; {remedy}" if remedy else what)
        self.what, self.remedy = what, remedy


class NotReady(ClusterError):
    """The cluster runs, but not all of it is ready yet: it is left as it is, to be looked at."""
