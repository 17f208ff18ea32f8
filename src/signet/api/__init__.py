"""HTTP in: the only room that knows a framework, a status code or a header."""
