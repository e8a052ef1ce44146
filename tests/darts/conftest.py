# SPDX-License-Identifier: Apache-2.0
"""Images that a small network learns in seconds."""

import pytest

from arch2vec_fast.darts.images import ImageSet
from toy import toy_images


@pytest.fixture(scope="session")
def stripes() -> ImageSet:
    return toy_images()
