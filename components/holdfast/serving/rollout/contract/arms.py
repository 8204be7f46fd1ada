"""The two arms of a rollout, and where probes reach each, as people write it down."""

from typing import Annotated

from pydantic import Field, field_validator

from holdfast.errors import RolloutError
from holdfast.serving.envoy.config import ARM_HEADER as ARM_HEADER
from holdfast.serving.envoy.config import CANDIDATE as CANDIDATE
from holdfast.serving.envoy.config import STABLE as STABLE
from holdfast.serving.rollout.contract.address import Address
from holdfast.workload.schema import Section

HeaderName = Annotated[str, Field(pattern=r"^[a-z0-9][-a-z0-9]{0,63}$")]
HeaderValue = Annotated[str, Field(pattern=r"^[!-~]([ -~]{0,1022}[!-~])?$")]
_OURS = ("host", "content-type", "content-length", "transfer-encoding", "connection")


class Destination(Section):
    """An address that one arm answers, and only it."""

    url: str
    """V2 protocol: `http://HOST:PORT/v2/models/NAME/infer`."""
    headers: dict[HeaderName, HeaderValue] = {}
    """Lower case; for a router that chooses by header. No secrets: this is stored without encryption."""

    @field_validator("url")
    @classmethod
    def _is_one(cls, url: str) -> str:
        try:
            Address.parse(url)
        except RolloutError as error:
            raise ValueError(str(error)) from None
        return url

    @field_validator("headers")
    @classmethod
    def _leaves_ours_alone(cls, headers: dict[str, str]) -> dict[str, str]:
        found = [name for name in headers if name in _OURS]
        if found:
            raise ValueError(f"expected no header of the request itself, found {', '.join(found)}")
        return headers


class Arms(Section):
    """Both arms."""

    champion: Destination
    candidate: Destination
