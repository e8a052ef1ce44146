# SPDX-License-Identifier: Apache-2.0
"""Search: one loop, many methods, one trace."""
