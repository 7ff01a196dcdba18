"""Certificates for localhost by openssl: one that signs itself, and those of a test's own authority."""

import pathlib

from tests.support.token_keys import openssl

NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


def self_signed(directory, subject, key, certificate, *extensions):
    """Two files of these names."""
    files = ["-keyout", key, "-out", certificate]
    openssl("req", "-x509", *NEW_KEY, "-days", "2", "-subj", f"/CN={subject}", *extensions, *files, cwd=directory)


def make_certificates(directory):
    """The authorities `ours` and `foreign`, and `server`, a certificate for localhost that `ours` signs."""
    for authority in ("ours", "foreign"):
        self_signed(directory, f"{authority} authority", f"{authority}.key", f"{authority}.crt")
    openssl("req", *NEW_KEY, "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr", cwd=directory)
    pathlib.Path(directory, "names").write_text("subjectAltName=DNS:localhost\n", encoding="ascii")
    signing = ["-CA", "ours.crt", "-CAkey", "ours.key", "-CAcreateserial", "-days", "2", "-extfile", "names"]
    openssl("x509", "-req", "-in", "server.csr", *signing, "-out", "server.crt", cwd=directory)
