"""What faces browsers and programs over HTTP.

`http.py` is the ASGI application, routed by hand; `guard.py` serves it with Hypercorn under Trio and keeps one bad
connection from ending all others. For now there is health, and nothing else.

This room knows the engine only through what it is given: an async callable. It holds no key, opens no store, and may
not import reception or delivery. `appliance.run.control` puts it together.
"""
