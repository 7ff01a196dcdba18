"""Certificates of a test's own authority, by openssl, for a PostgreSQL that has TLS."""

import pathlib
import subprocess


def openssl(directory, *arguments):
    subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)


def make_certificates(directory):
    """An authority, a server's certificate for localhost by it, one for another name, and another authority."""
    for authority in ("ours", "foreign"):
        openssl(
            directory,
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-subj",
            f"/CN={authority} authority",
            "-keyout",
            f"{authority}.key",
            "-out",
            f"{authority}.crt",
        )
    openssl(
        directory,
        "req",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/CN=localhost",
        "-keyout",
        "server.key",
        "-out",
        "server.csr",
    )
    pathlib.Path(directory, "names").write_text("subjectAltName=DNS:localhost\n", encoding="ascii")
    openssl(
        directory,
        "x509",
        "-req",
        "-in",
        "server.csr",
        "-CA",
        "ours.crt",
        "-CAkey",
        "ours.key",
        "-CAcreateserial",
        "-days",
        "2",
        "-extfile",
        "names",
        "-out",
        "server.crt",
    )
