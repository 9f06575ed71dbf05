"""What `tfmb doctor` looks at, each with a made-up machine."""

import json
from pathlib import Path
from typing import Any

import pytest

from tfmb.cli import main
from tfmb.cli.cluster import slurm_job, tf_config
from tfmb.cli.doctor import busy
from tfmb.cli.extras import extras, is_installed
from tfmb.cli.gpus import gpus, nvidia_cards
from tfmb.environment.processor import instruction_sets, processor_name

X86 = "processor\t: 0\nmodel name\t: AMD EPYC 9554\nflags\t\t: sse fma avx2 avx512f avx512_bf16 avx512_bf16x\n\n"
ARM = "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd sve bf16\n"


@pytest.mark.parametrize(
    ("text", "name", "sets"),
    [
        (X86 + X86.replace("EPYC", "other"), "AMD EPYC 9554", ["avx2", "fma", "avx512f", "avx512_bf16"]),
        (ARM, "aarch64", ["asimd", "sve", "bf16"]),
        (None, "aarch64", []),
    ],
    ids=["x86", "arm", "no file"],
)
def test_the_processor_by_linux(
    text: str | None, name: str, sets: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    assert processor_name(tmp_path / "cpuinfo", "Linux") == name
    assert instruction_sets(tmp_path / "cpuinfo") == sets


def test_the_processor_by_macos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.processor", lambda: "arm")
    assert processor_name(tmp_path / "cpuinfo", "Darwin") == "arm"  # no sysctl of that key on Linux
    tool = tmp_path / "sysctl"
    tool.write_text('#!/bin/sh\n[ "$*" = "-n machdep.cpu.brand_string" ] && echo "Apple M2 Pro"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert processor_name(tmp_path / "cpuinfo", "Darwin") == "Apple M2 Pro"
    assert processor_name(tmp_path / "cpuinfo", "Linux") == "arm"


@pytest.mark.parametrize(("load", "warns"), [(0.0, False), (2.0, False), (2.1, True), (40.0, True)])
def test_a_busy_machine_spoils_measurements(load: float, warns: bool) -> None:
    said = busy(load, 2)
    assert (said is not None) == warns
    if said is not None:
        assert said.startswith(f"{load:.1f} processes want 2 core(s)")


def cluster(role: str, index: Any, **jobs: list[str]) -> dict[str, str]:
    return {"TF_CONFIG": json.dumps({"cluster": jobs, "task": {"type": role, "index": index}})}


def test_a_process_outside_of_clusters() -> None:
    assert tf_config({}) == tf_config({"TF_CONFIG": ""}) == ({"TF_CONFIG": "not set"}, None)
    assert slurm_job({"PATH": "/bin"}) == ({"Slurm": "no job"}, None)


def test_a_worker_of_tf_config() -> None:
    entries, warning = tf_config(cluster("worker", 1, chief=["a:1"], worker=["b:2", "c:3"]))
    assert warning is None
    assert entries["TF_CONFIG"] == "valid"
    assert (entries["role"], entries["workers"], entries["rank"]) == ("worker 1", 3, 2)
    assert entries["address"] == "c:3"
    first, _ = tf_config(cluster("chief", "0", chief=["a:1"], worker=["b:2"]))
    assert (first["role"], first["rank"]) == ("chief 0", 0)


@pytest.mark.parametrize(
    ("environment", "word"),
    [
        ({"TF_CONFIG": "{"}, "TF_CONFIG is not as TensorFlow wants it"),
        ({"TF_CONFIG": "[]"}, "TF_CONFIG is not as TensorFlow wants it"),
        ({"TF_CONFIG": '{"cluster": {"worker": ["a:1"]}}'}, "no 'task'"),
        (cluster("worker", "first", worker=["a:1"]), "invalid literal"),
        (cluster("worker", 2, worker=["a:1", "b:2"]), "has 2 of that kind"),
        (cluster("worker", -1, worker=["a:1", "b:2"]), "has 2 of that kind"),
        (cluster("ps", 0, worker=["a:1"], ps=["b:2"]), "not as ps"),
    ],
)
def test_a_tf_config_that_will_not_do(environment: dict[str, str], word: str) -> None:
    entries, warning = tf_config(environment)
    assert warning is not None
    assert word in warning
    assert "rank" not in entries


SLURM = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "3", "SLURM_JOB_NODELIST": "n[1-4]"}


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "each of the 4 tasks trains alone"),
        ({"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, None),
        ({"SLURM_PROCID": None}, "start the workers with `srun"),
        ({"SLURM_PROCID": "4"}, "no rank among SLURM_NTASKS=4"),
        ({"SLURM_PROCID": "x"}, "no rank among"),
        ({"TF_CONFIG": "{}"}, "unset it"),
    ],
)
def test_a_job_of_slurm(changes: dict[str, str | None], word: str | None) -> None:
    given = {key: value for key, value in {**SLURM, **changes}.items() if value is not None}
    entries, warning = slurm_job(given)
    assert entries["Slurm"] == "job 7"
    assert entries["Slurm nodes"] == "n[1-4]"
    assert entries["Slurm tasks"] == given["SLURM_NTASKS"]
    assert entries.get("Slurm rank") == given.get("SLURM_PROCID")
    assert (warning is None) if word is None else (warning is not None and word in warning)


def card(pci: Path, name: str, vendor: str, kind: str) -> None:
    (pci / name).mkdir(parents=True)
    (pci / name / "vendor").write_text(f"{vendor}\n")
    (pci / name / "class").write_text(f"{kind}\n")


@pytest.fixture
def pci(tmp_path: Path) -> Path:
    """Two cards of NVIDIA's, one's sound, another maker's screen and a disk."""
    folder = tmp_path / "pci"
    for name, vendor, kind in (
        ("0000:01:00.0", "0x10de", "0x030200"),
        ("0000:01:00.1", "0x10de", "0x040300"),
        ("0000:02:00.0", "0x10de", "0x030000"),
        ("0000:03:00.0", "0x1a03", "0x030000"),
        ("0000:04:00.0", "0x144d", "0x010802"),
    ):
        card(folder, name, vendor, kind)
    (folder / "gone").mkdir()
    (folder / "gone" / "vendor").write_text("0x10de\n")
    return folder


def test_only_nvidias_display_controllers_count(pci: Path, tmp_path: Path) -> None:
    assert nvidia_cards(pci) == 2
    assert nvidia_cards(tmp_path / "nowhere") == 0


def test_what_stands_in_the_way_of_a_gpu(pci: Path, tmp_path: Path) -> None:
    driver, none, smi = tmp_path / "driver", tmp_path / "none", "/usr/bin/nvidia-smi"
    driver.mkdir()
    (driver / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5\n")
    hidden = {"CUDA_VISIBLE_DEVICES": ""}

    entries, warning = gpus(0, {}, pci, none)
    assert entries == {"NVIDIA GPUs": 2, "NVIDIA driver": "none"}
    assert warning is not None
    assert warning.startswith(f"2 NVIDIA GPU(s) and no driver ({none} is missing)")
    entries, warning = gpus(0, hidden, pci, driver, smi)
    assert entries == {"NVIDIA GPUs": 2, "NVIDIA driver": "550.54.15", "CUDA_VISIBLE_DEVICES": "''"}
    assert warning == "CUDA_VISIBLE_DEVICES='' hides every GPU: unset it"
    assert "hides every GPU" in str(gpus(0, {"CUDA_VISIBLE_DEVICES": "-1,0"}, pci, driver)[1])
    assert "names no GPU" in str(gpus(0, {"CUDA_VISIBLE_DEVICES": "7"}, pci, driver)[1])
    assert "tensorflow[and-cuda]" in str(gpus(0, {}, pci, driver, smi)[1])
    assert "is there, but no driver" in str(gpus(0, {}, none, none, smi)[1])
    for fine in (gpus(2, {}, pci, driver, smi), gpus(1, {"CUDA_VISIBLE_DEVICES": "1"}, pci, driver)):
        assert fine[1] is None
    assert gpus(0, {}, none, none) == ({"NVIDIA GPUs": 0, "NVIDIA driver": "none"}, None)
    assert gpus(0, hidden, none, none)[1] is None  # there is nothing to hide


def test_a_missing_extra_comes_with_its_command() -> None:
    requirements = ["keras<3.16,>=3.12", 'torch<3,>=2.8; extra == "bench"', "jax (>=0.7) ; extra == 'bench'",
                    'mkdocstrings[python]>=1.0; extra == "docs"', 'pytest; extra == "test"']  # fmt: skip
    entries, warning = extras(requirements, {"keras", "jax", "pytest"}.__contains__)
    assert entries == {
        "bench": "missing; pip install 'torch<3,>=2.8'",
        "docs": "missing; pip install 'mkdocstrings[python]>=1.0'",
        "test": "installed",
    }
    assert warning is None
    assert extras(requirements[2:3], lambda name: False)[0] == {"bench": "missing; pip install 'jax>=0.7'"}
    assert "pip install 'keras<3.16,>=3.12'" in str(extras(requirements, lambda name: False)[1])
    assert is_installed("pytest")
    assert not is_installed("no-such-package-anywhere")


def test_the_command_warns_in_text_and_in_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (1000.0, 0.0, 0.0))
    monkeypatch.setenv("TF_CONFIG", "{")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {"load", "TF_CONFIG", "Slurm"} <= set(report["warnings"])
    assert report["machine"]["load"] == 1000.0
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "  Slurm: job 7" in lines
    assert lines.index("warnings") > lines.index("data")
    assert any(line.startswith("  load: 1000.0 processes want ") for line in lines[lines.index("warnings") :])


def test_a_machine_without_faults_has_no_warnings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (0.5, 0.0, 0.0))
    monkeypatch.setattr("tfmb.cli.gpus.nvidia_cards", lambda pci: 0)
    monkeypatch.setattr("shutil.which", lambda name: None)
    for name in ("TF_CONFIG", "SLURM_JOB_ID", "SLURM_JOBID"):
        monkeypatch.delenv(name, raising=False)
    assert main(["doctor"]) == 0
    assert "warnings" not in capsys.readouterr().out
