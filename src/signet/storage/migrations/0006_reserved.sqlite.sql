-- Reserved-capacity documents in the order in which they came into force; the last one is in force
-- in every process of every node. One that was replaced is known by its hash, so that a node whose
-- file is old does not bring it back by starting.
CREATE TABLE reserved_documents (
    revision INTEGER PRIMARY KEY,
    hash BLOB NOT NULL CHECK (length(hash) = 32),
    at_us INTEGER NOT NULL,
    document BLOB NOT NULL
) STRICT;
CREATE INDEX reserved_documents_hash ON reserved_documents (hash);

-- How often this deployment was about to send to Stripe. Whoever sends keeps the number outside the
-- database too; a database that knows a lower one comes from a backup.
ALTER TABLE billing_deployment ADD COLUMN sends INTEGER NOT NULL DEFAULT 0;
