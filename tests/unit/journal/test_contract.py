"""The contract on SQLite and on a PostgreSQL of the test run's own."""

from tests.unit.journal.contract import *  # noqa: F403 - its tests are found here
