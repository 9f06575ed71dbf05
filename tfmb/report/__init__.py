"""Pages of HTML that need nothing else: charts and tables of what was measured."""
