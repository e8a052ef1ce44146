# SPDX-License-Identifier: Apache-2.0
"""Looking at what was learnt: projections, drawings of cells, the HTML report."""
