# SPDX-License-Identifier: Apache-2.0
"""Measurements of this package; see README.md."""
