"""ResourceQuotas: what an object counts for, which quotas it falls under, and whether there is room for it.

Pure. `usage` measures one object, `scopes` says which pods a quota is about, `check` decides a request and counts what
is there. Invariant: what a request is charged with is what a recount finds once it is stored.
Source: upstream's `pkg/quota/v1` and `k8s.io/apiserver/pkg/admission/plugin/resourcequota`.
"""

from fairlead.api.quota.check import QUOTA_AMOUNTS as QUOTA_AMOUNTS
from fairlead.api.quota.check import QuotaRefused as QuotaRefused
from fairlead.api.quota.check import charge as charge
from fairlead.api.quota.check import counted as counted
from fairlead.api.quota.check import render as render
from fairlead.api.quota.usage import counts_for as counts_for
from fairlead.api.quota.usage import is_live as is_live
from fairlead.api.quota.usage import measured_on_update as measured_on_update
