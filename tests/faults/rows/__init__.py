"""The rows of the table, by what is struck. Importing a module puts its rows into `bench.ROWS`, in this order."""

from tests.faults.rows import death, overload, clients, control, rolling, bytes_, chaos  # noqa: F401, I001 - the table's order
