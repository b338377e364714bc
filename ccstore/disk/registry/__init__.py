"""Nodes and jobs in a SQLite database that the reference store can share.

`sql` has every statement, `database` the connection and its transactions, `nodes` and `jobs` what is
stored and read back. All of it blocks and belongs into the one worker thread of the database.
"""
