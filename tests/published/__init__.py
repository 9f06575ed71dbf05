"""Runs programs that others published, with Keras and under `tfmb run --strict`, on made-up data.

    python -m tests.published FOLDER --ledger FILE [--page docs/coverage.md]

FOLDER has the scripts; none of them is in this project. See tests/README.md.
"""
