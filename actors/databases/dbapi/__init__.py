"""Any driver that follows PEP 249."""
