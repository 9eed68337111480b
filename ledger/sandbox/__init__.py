"""A provider simulator with its own books: the other side of the wire, sharing no code with the client."""
