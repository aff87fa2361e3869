"""Between the wire and the store: generic verbs, one strategy per kind, allocation of what must be unique.

In: decoded objects and typed options from `apiserver`. Out: objects, encoded watch events, `StatusError`.
Never: HTTP. Every write is one commit of the store, with all that belongs to it (allocations, checks) in it.
"""

from fairlead.registry.registry import Registry as Registry
from fairlead.registry.requests import DeleteOptions as DeleteOptions
from fairlead.registry.requests import ListOptions as ListOptions
from fairlead.registry.requests import ListResult as ListResult
from fairlead.registry.requests import Preconditions as Preconditions
from fairlead.registry.requests import RegistryEvent as RegistryEvent
from fairlead.registry.requests import RegistryOptions as RegistryOptions
from fairlead.registry.requests import RequestContext as RequestContext
from fairlead.registry.requests import User as User
from fairlead.registry.requests import WatchOptions as WatchOptions
