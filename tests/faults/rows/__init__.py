"""The rows of the table, by what is struck. Importing a module puts its rows into `bench.ROWS`."""

from tests.faults.rows import bytes_, clients, control, death, overload, rolling  # noqa: F401
