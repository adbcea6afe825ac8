"""A Python client; needs `livedrag.server.document` alone, neither torch nor Starlette."""
