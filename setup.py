"""What `setup.cfg` cannot say: README as a package index shows it, beside none of the files that README links to."""

import re
from pathlib import Path

from setuptools import setup

# Relative ones: an index has nothing where they lead. None is made absolute, because the project has no address yet.
_PICTURE = re.compile(r"!\[[^\]]*\]\((?!https?:)[^)]*\)\n*")
_LINK = re.compile(r"\[([^\]]+)\]\((?!https?:)[^)]*\)")
_CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def for_an_index(readme: str) -> str:
    """README without its pictures, and with the words of its links in their places; code stays as it is."""
    parts, end = [], 0
    for code in _CODE.finditer(readme):
        parts += [_plain(readme[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*parts, _plain(readme[end:])])


def _plain(text: str) -> str:
    return _LINK.sub(r"\1", _PICTURE.sub("", text))


if __name__ == "__main__":
    setup(long_description=for_an_index(Path(__file__).with_name("README.md").read_text("utf-8")))
