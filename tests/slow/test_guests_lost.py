"""A search that loses a whole host."""

from pathlib import Path

from search_processes import two_hosts


def test_a_host_that_is_lost_gives_its_trial_back(tmp_path: Path) -> None:
    two_hosts(tmp_path, dies=True)
