-- When a key begins to sign; NULL while it is only published. `webhook` is the public half of the
-- key derived from it for forwards.
ALTER TABLE signing_keys ADD COLUMN signs_from_us INTEGER;
ALTER TABLE signing_keys ADD COLUMN webhook BLOB CHECK (length(webhook) = 32);
-- Until now the key of the newest start signed. The first key has always signed.
UPDATE signing_keys SET signs_from_us = 0 WHERE kid = (
    SELECT kid FROM signing_keys WHERE retired_us IS NULL AND revoked_us IS NULL
    ORDER BY created_us DESC, kid LIMIT 1
);

-- Whoever changes the keys' lives takes this row first, so that changes come one after another.
CREATE TABLE signing_turn (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    changes INTEGER NOT NULL
) STRICT;
INSERT INTO signing_turn VALUES (1, 0);

-- The signature of the key before, over the receipt of a rotation.
CREATE TABLE key_countersignatures (
    receipt_hash BLOB PRIMARY KEY CHECK (length(receipt_hash) = 32),
    jws TEXT NOT NULL
) STRICT;
