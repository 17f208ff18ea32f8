-- Every change of the registry takes the next revision, under the lock of this one row: whoever has
-- seen a revision has seen all that came before it. (Ids do not tell: they commit in any order.)
CREATE TABLE registry_revision (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    revision BIGINT NOT NULL
);
INSERT INTO registry_revision VALUES (1, 0);

ALTER TABLE registry_documents ADD COLUMN revision BIGINT NOT NULL DEFAULT 0;
ALTER TABLE registry_documents ADD COLUMN deprecated_us BIGINT;
ALTER TABLE registry_documents ADD COLUMN deprecation TEXT COLLATE "C";
CREATE INDEX registry_documents_revision ON registry_documents (revision);
