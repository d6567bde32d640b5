"""Fixtures that several unit tests share."""

import shutil

import fake_celebamask as fake
import pytest


@pytest.fixture(scope="session")
def whole_download(tmp_path_factory):
    root = tmp_path_factory.mktemp("download")
    fake.write_download(root)
    return root


@pytest.fixture
def download(whole_download, tmp_path):
    """A copy to be damaged."""
    return shutil.copytree(whole_download, tmp_path / "download")
