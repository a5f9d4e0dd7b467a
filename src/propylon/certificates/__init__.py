"""Certificates: reading them (`x509`), and a local authority that issues them for development (`local_authority`)."""
