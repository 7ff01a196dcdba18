"""Signing keys for a test: private PEM files by openssl, and their public halves as a JWK set."""

import base64
import json
import os
import pathlib
import subprocess

PARAMETERS = {
    "ES256": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
    "RS256": ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
    "EdDSA": ["-algorithm", "ED25519"],
}


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def openssl(*arguments, cwd=None):
    return subprocess.run(["openssl", *arguments], cwd=cwd, capture_output=True, check=True).stdout


def _part(token, index):
    text = token.split(".")[index]
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def header_of(token):
    return _part(token, 0)


def claims_of(token):
    return _part(token, 1)


class Key:
    """A key pair. `pem` is the private half's file; `jwk` the public half, as Supabase publishes it."""

    def __init__(self, directory, kid, alg="ES256"):
        self.kid, self.alg = kid, alg
        self.pem = str(pathlib.Path(directory, kid + ".pem"))
        openssl("genpkey", "-quiet", *PARAMETERS[alg], "-out", self.pem)
        self.jwk = {"kid": kid, "alg": alg, "use": "sig", "key_ops": ["verify"], "ext": True} | self._public()

    def _public(self):
        der = openssl("pkey", "-in", self.pem, "-pubout", "-outform", "DER")
        if self.alg == "ES256":
            return {"kty": "EC", "crv": "P-256", "x": base64url(der[-64:-32]), "y": base64url(der[-32:])}
        if self.alg == "EdDSA":
            return {"kty": "OKP", "crv": "Ed25519", "x": base64url(der[-32:])}
        modulus = openssl("rsa", "-in", self.pem, "-noout", "-modulus").decode().strip().partition("=")[2]
        return {"kty": "RSA", "n": base64url(bytes.fromhex(modulus)), "e": "AQAB"}

    def mint(self, stack, *arguments):
        return stack.mint("--alg", self.alg, "--key", self.pem, "--kid", self.kid, *arguments)


def publish(file, *keys):
    """Replaces a JWK set file in one step."""
    text = json.dumps({"keys": [key.jwk for key in keys]})
    replace(file, text)


def replace(file, text):
    new = f"{file}.new"
    pathlib.Path(new).write_text(text, encoding="utf-8")
    os.chmod(new, 0o644)
    os.replace(new, file)
