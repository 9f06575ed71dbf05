"""Faults planted in a copy of the package, and a command that says which of them the tests find.

.venv/bin/python tests/mutations/run.py             # the default suite: which of the twenty does it find?
.venv/bin/python tests/mutations/run.py --suite all # with every mark but `slow`
"""
