# SPDX-License-Identifier: Apache-2.0
"""`python -m arch2vec_fast.cli`, the same as `arch2vec-fast`."""

from arch2vec_fast.cli import main

main()
