# SPDX-License-Identifier: Apache-2.0
"""Benchmarks that need a GPU; `make gpu-check` runs them. See bench/README.md."""
