"""What every command of the stand-alone runtime gets to know beside its own options."""

from __future__ import annotations

from wherry.runtime.options import Options
from wherry.runtime.report import Report
from wherry.runtime.state import Container, Store


class Context:
    """What the global options say: where containers are kept, where complaints go, who makes control groups."""

    def __init__(self, store: Store, report: Report, *, systemd_cgroup: bool = False) -> None:
        self.store = store
        self.report = report
        self.systemd_cgroup = systemd_cgroup

    def container(self, options: Options) -> Container:
        """Return the container that the first word names."""
        return self.store.load(options.words[0])

    def warn(self, failures: list[str]) -> None:
        """Tell of what went wrong too late to be undone."""
        for failure in failures:
            self.report.warning(failure)
