"""Every method with and without OGEN."""
