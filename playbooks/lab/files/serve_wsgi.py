#!/usr/bin/python3
"""serve_wsgi.py keystone|placement ADDRESS PORT: services that want a web server."""

import sys

from waitress import serve

service, address, port = sys.argv[1:]
del sys.argv[1:]  # keystone reads the command line too
if service == "keystone":
    from keystone.server.wsgi import initialize_public_application as application
else:
    from placement.wsgi import init_application as application
serve(
    application(),
    host=address,
    port=int(port),
    threads=6,
    connection_limit=500,
    channel_timeout=300,
)
