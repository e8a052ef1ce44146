# SPDX-License-Identifier: Apache-2.0
"""Whole jobs, against the released code."""
