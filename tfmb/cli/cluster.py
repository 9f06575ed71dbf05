"""What the environment says of a cluster: `TF_CONFIG`, and Slurm's variables."""

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["slurm_job", "tf_config"]

_Told = tuple[dict[str, Any], str | None]
_TRAIN = ("chief", "worker")


def tf_config(environment: Mapping[str, str]) -> _Told:
    """What `TF_CONFIG` makes of this process.

    Args:
        environment: of the process.

    Returns:
        `(entries, warning)`: whether it is valid, this process's role, how many workers there are and its rank among
        them; and what is wrong, or None.
    """
    text = environment.get("TF_CONFIG", "")
    if not text:
        return {"TF_CONFIG": "not set"}, None
    try:
        found = json.loads(text)
        cluster, task = found["cluster"], found["task"]
        role, index = str(task["type"]), int(task["index"])
        hosts = {job: list(cluster.get(job, [])) for job in {*_TRAIN, role}}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"no {error}" if isinstance(error, KeyError) else str(error)
        warning = f"TF_CONFIG is not as TensorFlow wants it ({why}): give cluster and task, or use `tfmb launch`"
        return {"TF_CONFIG": f"invalid: {why}"}, warning
    workers = sum(len(hosts[job]) for job in _TRAIN)
    entries: dict[str, Any] = {"TF_CONFIG": "valid", "role": f"{role} {index}", "workers": workers}
    if not 0 <= index < len(hosts[role]):
        why = f"its task is {role} {index}, but its cluster has {len(hosts[role])} of that kind"
        return {**entries, "TF_CONFIG": f"invalid: {why}"}, f"TF_CONFIG: {why}"
    if role not in _TRAIN:
        return entries, f"TF_CONFIG: tfmb trains as chief or worker, not as {role}: leave {role} out of the cluster"
    entries["rank"] = index + (len(hosts["chief"]) if role == "worker" else 0)
    entries["address"] = hosts[role][index]
    entries["used by"] = "--strategy multi-worker"
    return entries, None


def slurm_job(environment: Mapping[str, str]) -> _Told:
    """What Slurm says of this process.

    Args:
        environment: of the process.

    Returns:
        `(entries, warning)`: the job, its tasks, this one's rank and the nodes; nothing outside of a job.
    """
    job = environment.get("SLURM_JOB_ID") or environment.get("SLURM_JOBID")
    if not job:
        return {"Slurm": "no job"}, None
    tasks = environment.get("SLURM_STEP_NUM_TASKS") or environment.get("SLURM_NTASKS")
    rank = environment.get("SLURM_PROCID")
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST")
    told = {"Slurm": f"job {job}", "Slurm tasks": tasks, "Slurm rank": rank, "Slurm nodes": nodes}
    entries = {key: value for key, value in told.items() if value is not None}
    if rank is None:
        return entries, "Slurm: this process is no task of a step: start the workers with `srun tfmb train ...`"
    if not rank.isdecimal() or (tasks is not None and not (tasks.isdecimal() and int(rank) < int(tasks))):
        return entries, f"Slurm: SLURM_PROCID={rank} is no rank among SLURM_NTASKS={tasks}: set neither by hand"
    if environment.get("TF_CONFIG"):
        return entries, "Slurm: TF_CONFIG is set too, and is what counts: unset it to train with Slurm's tasks"
    if tasks is not None and int(tasks) > 1:
        alone = f"Slurm: give `tfmb train` --strategy multi-worker: without it each of the {tasks} tasks trains alone"
        return entries, alone
    return entries, None
