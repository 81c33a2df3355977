//! SPIFFE IDs, trust domains, bundles and X.509-SVID rules.
