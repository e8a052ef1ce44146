# SPDX-License-Identifier: Apache-2.0
"""What this package is measured against, one module a rival."""
