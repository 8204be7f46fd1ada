"""Addresses that the HTTP client takes. What it makes of slow and endless answers: tests/kubernetes/test_api.py."""

import pytest

from holdfast.errors import WorkloadError
from holdfast.http_client import HttpClient


@pytest.mark.parametrize("url", ["ftp://a", "http://", "api:6443", "http://u:p@h", "http://h?x=1"])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(WorkloadError, match="expected http://HOST"):
        HttpClient(url)
