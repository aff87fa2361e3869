"""SPDY/3.1, as much of it as exec, attach and port-forward need: kubectl up to 1.29 speaks nothing else for
them, and later ones speak it inside a WebSocket to forward ports.

`frames` and `session` are sans-IO: bytes in, values out, and back. `bridge` joins a session to a connection and to the
kubelet's WebSocket; `forward` joins one, over a `carriers.Carrier`, to forwarded connections. Imported only when such a
request comes.
"""
