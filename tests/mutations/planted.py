"""Twenty faults: ten written by hand, one a room, before the suite was cut; ten drawn by a tool.

The drawn ones are from cosmic-ray 8.7.0 (arithmetic, comparisons, numbers, `not`, `and`, `or`, booleans), shuffled with
`random.Random(21)` over rules, parts, checkpoint, batches and journal in that order: the first two of each file that
change what the code does. At 3f3f153, 2026-11-29. RMSprop's two
are planted where its velocity and its mean are made now.
"""

from dataclasses import dataclass

__all__ = ["MUTATIONS", "Mutation"]


@dataclass(frozen=True)
class Mutation:
    """One fault.

    Attributes:
        name: what is wrong, in words.
        file: where.
        old: what stands there once.
        new: what to put there.
        near: the tests to run first: those of its room. If they pass, the whole suite is run.
    """

    name: str
    file: str
    old: str
    new: str
    near: str


SGD, RMSPROP, PARTS, CHECKPOINT = (
    "tfmb/optimizers/sgd.py",
    "tfmb/optimizers/rmsprop.py",
    "tfmb/training/step/partition.py",
    "tfmb/training/checkpoint/checkpointer.py",
)
BATCHES, JOURNAL = "tfmb/data/batches.py", "tuning/oracles/journal.py"

BY_HAND = [
    Mutation(
        "Nesterov looks back",
        SGD,
        "gradient + gamma * v if self.nesterov",
        "gradient - gamma * v if self.nesterov",
        "tests/optimizers",
    ),
    Mutation(
        "images move as far down as across",
        "tfmb/data/augment.py",
        "signed[:, 3] * self.shift",
        "signed[:, 2] * self.shift",
        "tests/data",
    ),
    Mutation(
        "a checkpoint's name is not synced",
        "tfmb/storage/atomic.py",
        "        raise\n    sync(path.parent)\n",
        "        raise\n",
        "tests/storage/test_atomic.py",
    ),
    Mutation(
        "a seed forgets all but the first word of its purpose",
        "tfmb/seeds.py",
        "for part in (seed, *purpose))",
        "for part in (seed, *purpose[:1]))",
        "tests/test_seeds.py",
    ),
    Mutation(
        "the rate that is reported is the next update's",
        "tfmb/training/loop/run.py",
        "made, self._rate = call.made, rate_of(self._step.optimizer, before=1)",
        "made, self._rate = call.made, rate_of(self._step.optimizer, before=0)",
        "tests/training/loop/test_run.py",
    ),
    Mutation(
        "an export's logits and probabilities have each other's names",
        "tfmb/serving/signatures.py",
        '{"logits": logits, "probabilities": tf.nn.softmax(logits),',
        '{"logits": tf.nn.softmax(logits), "probabilities": logits,',
        "tests/serving/test_signatures.py",
    ),
    Mutation(
        "each part of a batch has the first part's mask",
        "tfmb/layers.py",
        "tf.cast(tf.cast(start, tf.int64) * tf.cast(blocks, tf.int64), tf.uint64)",
        "tf.cast(tf.cast(0 * start, tf.int64) * tf.cast(blocks, tf.int64), tf.uint64)",
        "tests/test_layers.py",
    ),
    Mutation(
        "a search goes on with the trial on the lowest rung",
        "tuning/oracles/halving.py",
        "key=lambda trial: (-self._waiting[trial],",
        "key=lambda trial: (self._waiting[trial],",
        "tests/tuning/oracles/test_halving.py",
    ),
    Mutation(
        "more updates are foreseen for a larger batch",
        "tfmb/advice/batch_curve.py",
        "(1 + self.critical_batch_size.value / batch_size)",
        "(1 + batch_size / self.critical_batch_size.value)",
        "tests/advice",
    ),
    Mutation(
        "two workers take themselves for the first",
        "tfmb/distribution/multi_worker.py",
        "cluster is None or cluster.rank == 0",
        "cluster is None or cluster.rank <= 1",
        "tests/distribution/test_multi_worker.py",
    ),
]

DRAWN = [
    Mutation(
        "RMSprop: momentum * v + step",
        RMSPROP,
        "self.momentum * slots[-1] + (rate * step",
        "self.momentum * slots[-1] * (rate * step",
        "tests/optimizers",
    ),
    Mutation("RMSprop: the mean's slot", RMSPROP, "rho * slots[1] + (1", "rho * slots[0] + (1", "tests/optimizers"),
    Mutation(
        "rows of a part: -size",
        PARTS,
        "most = -(-size // parts)",
        "most = -(+size // parts)",
        "tests/training/step/test_partition.py",
    ),
    Mutation(
        "virtual_replicas beside micro_batch_size",
        PARTS,
        'if virtual_replicas != "auto":',
        'if virtual_replicas >= "auto":',
        "tests/training/step/test_partition.py",
    ),
    Mutation(
        "any name of digits is a checkpoint",
        CHECKPOINT,
        "len(name) == 17 and name[5:].isdecimal()",
        "len(name) == 17 or name[5:].isdecimal()",
        "tests/training/checkpoint/test_checkpointer.py",
    ),
    Mutation(
        "the best epoch's number is 2**63",
        CHECKPOINT,
        "0 <= best[1] < 2**63)",
        "0 <= best[1] == 2**63)",
        "tests/training/test_resume.py",
    ),
    Mutation(
        "later epochs skip all batches",
        BATCHES,
        "tf.where(epoch == first_epoch, first_step, 0)",
        "tf.where(epoch == first_epoch, first_step, -1)",
        "tests/data",
    ),
    Mutation(
        "a batch's end",
        BATCHES,
        "[start : start + self.batch_size]",
        "[start : start // self.batch_size]",
        "tests/data",
    ),
    Mutation(
        "where an unfinished line is cut off",
        JOURNAL,
        "truncate(len(content) - len(rest))",
        "truncate(len(content) / len(rest))",
        "tests/tuning/oracles/test_journal.py",
    ),
    Mutation(
        "no journal has the right size",
        JOURNAL,
        "st_size > _MOST_BYTES",
        "st_size != _MOST_BYTES",
        "tests/tuning/oracles/test_journal.py",
    ),
]

MUTATIONS = [*BY_HAND, *DRAWN]
