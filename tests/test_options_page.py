"""docs/options.md says what the declarations say."""

from house.options_page import PAGE, page


def test_the_page_is_made_of_the_declarations() -> None:
    assert PAGE.read_text() == page(), "run: python tests/house/options_page.py"
