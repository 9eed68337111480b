"""Reading CRM exports: dialect, encoding, header map, normalising, identity keys."""
