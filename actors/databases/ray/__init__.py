"""Connections in the actors of a Ray cluster, and the gateway process that talks to Ray."""
