"""SPDY/3.1, as much of it as exec and attach need: kubectl up to 1.29 speaks nothing else for them.

`frames` and `session` are sans-IO: bytes in, values out, and back. `bridge` joins a session to a connection and to the
kubelet's WebSocket. Imported only when such a request comes.
"""
