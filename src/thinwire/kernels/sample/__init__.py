"""Which entries are drawn, and with what probability."""
