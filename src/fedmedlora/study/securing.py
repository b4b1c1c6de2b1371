"""A site's own terms of secure aggregation: the shared study and the sites' public keys in."""

from __future__ import annotations

from fedmedlora.federation.deployment.layout import SiteFolder
from fedmedlora.federation.deployment.members import all_members
from fedmedlora.federation.secure.options import Terms
from fedmedlora.study.arms import secure_options
from fedmedlora.study.shared import Shared


def secure_terms(shared: Shared, site: str, folder: SiteFolder) -> Terms | None:
    """What a site holds of its federation's secure aggregation, if there is any.

    Raises:
        ConfigError: the public key of another site is missing.
        DataError: it is not what that site signed.
    """
    study = shared.arm.study
    options, federation = secure_options(study), study.federation
    if options is None:
        return None
    sites = study.site_names
    members = all_members(folder, site, sites)
    return Terms.of(
        options,
        run=shared.run_id,
        public_keys=[(name, members[name].signing) for name in sites],
        method=shared.arm.federated_method,
        size=federation.size,
        beta=federation.beta,
        tau=federation.tau,
    )
