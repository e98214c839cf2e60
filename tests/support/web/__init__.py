"""Clients and certificates for tests of the HTTP server."""
