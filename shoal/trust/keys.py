"""Our keys as python-tuf's: a raw Ed25519 key has one name everywhere, `shoal.signing.key_id`."""

from __future__ import annotations

from securesystemslib.signer import Key, SecretsHandler, Signature, SSlibKey
from securesystemslib.signer import Signer as TufSignerBase

from shoal.errors import InvalidInputError
from shoal.signing import PublicKey, Signer, key_id

_KIND = "ed25519"


class TufSigner(TufSignerBase):
    """Anything that holds a private key, as python-tuf asks for it."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer
        self._key = tuf_key(signer.public_key)

    @property
    def public_key(self) -> Key:
        """The public half."""
        return self._key

    def sign(self, payload: bytes) -> Signature:
        """Sign the bytes."""
        return Signature(self._key.keyid, self._signer.sign(payload).hex())

    @classmethod
    def from_priv_key_uri(
        cls, priv_key_uri: str, public_key: Key, secrets_handler: SecretsHandler | None = None
    ) -> TufSigner:
        """Not by URI: keys are opened where their passphrases are asked for."""
        raise InvalidInputError(f"key {priv_key_uri[:80]!r}: keys are opened from their files")


def tuf_key(public: PublicKey) -> SSlibKey:
    """A key as it stands in metadata."""
    return SSlibKey(key_id(public), _KIND, _KIND, {"public": public.hex()})


def raw_key(key: Key) -> PublicKey:
    """The raw key, if it is one of ours: Ed25519, and under its own name."""
    try:
        public = bytes.fromhex(str(key.keyval["public"]))
    except (ValueError, KeyError) as error:
        raise InvalidInputError(f"key {key.keyid[:12]}…: {error}", code="bad-key") from error
    if (key.keytype, key.scheme, len(public)) != (_KIND, _KIND, 32) or key.keyid != key_id(public):
        raise InvalidInputError(
            f"key {key.keyid[:12]}…: expected an Ed25519 key under its own name, "
            f"got {key.keytype[:20]!r} {key.scheme[:20]!r}",
            code="bad-key",
        )
    return public
