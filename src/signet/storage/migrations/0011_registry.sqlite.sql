-- Every change of the registry takes the next revision, under the lock of this one row: whoever has
-- seen a revision has seen all that came before it. (Ids do not tell: they commit in any order.)
CREATE TABLE registry_revision (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    revision INTEGER NOT NULL
) STRICT;
INSERT INTO registry_revision VALUES (1, 0);

ALTER TABLE registry_documents ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
ALTER TABLE registry_documents ADD COLUMN deprecated_us INTEGER;
ALTER TABLE registry_documents ADD COLUMN deprecation TEXT;
CREATE INDEX registry_documents_revision ON registry_documents (revision);
