"""`tfmb verify` as a user runs it, on a run of each kind of model, in processes of its own."""

import json
from pathlib import Path

import pytest
import subjects
from verify_command import tfmb_command


@pytest.mark.parametrize("name", subjects.NAMES)
def test_a_run_of_each_model_is_verified(name: str, tmp_path: Path) -> None:
    done = tfmb_command(*subjects.train_options(name), "--virtual-replicas", "2", "--run-dir", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    named = [] if name in ("cnn", "mlp", "resnet") else subjects.own(name)
    done = tfmb_command("verify", "run", *named, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    statuses = {check["name"]: check["status"] for check in json.loads(done.stdout)["checks"]}
    tolerance = statuses.pop("replica invariance, within a tolerance")
    assert tolerance == ("not applicable" if name == "resnet" else "passed")
    assert set(statuses.values()) == {"passed"}
