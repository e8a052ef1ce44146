# SPDX-License-Identifier: Apache-2.0
"""Single operations, against the ways people do them now."""
