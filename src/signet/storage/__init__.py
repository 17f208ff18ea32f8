"""The only room that knows SQL: one set of transaction functions, run by two small engines.

`database.open_database` opens and migrates SQLite or PostgreSQL; `committer.open_committer` is
the hot path's front; every other module holds the SQL of one subject as plain functions of a `Tx`.
"""
