"""Signed statements about artifacts: who made or judged what, checkable offline by anyone with the public keys.

A *statement* (in-toto v1) is about the digest of an artifact, which is the SHA-256 of its `artifact.json`, and that
file pins everything else. It travels in a *bundle* (sigstore's v0.3) around a signed envelope (DSSE), and lies in
`attestations/` next to the artifacts of a run, never inside an artifact. A *trust policy* (`trust.yaml`) lists whose
signature counts for what.

keys -> envelope -> statement -> predicates (from documents) -> sign -> store; trust, chain read them back.
"""
