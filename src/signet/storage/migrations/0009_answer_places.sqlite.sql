-- Where payload, receipt and JWS belong in an answer that is kept without them; NULL: it is whole.
ALTER TABLE answers ADD COLUMN places TEXT;
