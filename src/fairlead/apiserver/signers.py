"""Who may approve or sign a CertificateSigningRequest: whoever may `approve` or `sign` for its signer.

Beside the verbs; source: upstream's admission plug-ins CertificateApproval and CertificateSigning. Invariant: asked
before every write to a request's `approval` and `status`.
"""

from __future__ import annotations

from fairlead.api import errors
from fairlead.api.kinds import CERTIFICATESIGNINGREQUESTS
from fairlead.apiserver.authorization import Attributes, Authorizer
from fairlead.apiserver.call import Call
from fairlead.registry import Registry

_VERBS = {"approval": "approve", "status": "sign"}


async def check(registry: Registry, authorizer: Authorizer, call: Call) -> None:
    """Raises 403 if the user may not, 404 if there is no such request."""
    info, resource = call.info, CERTIFICATESIGNINGREQUESTS
    verb = _VERBS.get(info.subresource)
    if verb is None:
        return
    found = await registry.get(resource, "", info.name)
    signer = (found.get("spec") or {}).get("signerName") or ""
    for name in (signer, f"{signer.partition('/')[0]}/*"):
        asked = Attributes(call.user, verb, resource.group, resource.version, "signers", name=name)
        if (await authorizer.authorize(asked)).allowed:
            return
    raise errors.access_forbidden(
        f'{resource.group_plural} "{info.name}" is forbidden: user not permitted to {verb} requests with signerName '
        f'"{signer}"',
        resource.plural,
        resource.group,
        info.name,
    )
