"""CoreDNS's plugins: what a Corefile's directives mean, each a parser and a handler.

Stands between the Corefile and the server. Invariants: an option that is not known is refused by name and line when the
Corefile is read, before anything changes; the chain is put together once, when it is loaded, so that a plugin that a
Corefile does not name costs nothing.
"""
