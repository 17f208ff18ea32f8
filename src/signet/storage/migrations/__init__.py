"""Numbered schema files, applied in order by `signet.storage.migrate`.

`NNNN_name.sql` serves both engines, `NNNN_name.sqlite.sql` and `NNNN_name.postgres.sql` one each.
A file that has been released is never edited. Changes expand first and contract a release later,
so that the previous release keeps working on the new schema.
"""
