"""Tests for kernels that have ip_vs: collected where there is one, that is, inside user-mode Linux (tools/uml)."""

from __future__ import annotations

from pathlib import Path

collect_ignore_glob = [] if Path("/proc/net/ip_vs").exists() else ["test_*.py"]
