"""Loops that call one use case each, until the gateway stops."""
